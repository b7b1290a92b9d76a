"""Data sets: what they are (`sets`), how they get onto the disk (`prepare`), into memory (`memory`) and into the step (`augment`).

A module a data set family that is not TensorFlow Datasets' own. TensorFlow is needed by some official
builders, and only to prepare.
"""
