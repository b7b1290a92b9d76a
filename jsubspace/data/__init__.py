"""Data sets: the facts (`sets`), and how they get onto the disk (`prepare`), into memory (`memory`) and into a step (`augment`).

Photographs do not fit into memory. `imagenet` reads them during training, and `jpeg` decodes and crops them in the
processes of `workers`.

A family of data sets that TensorFlow Datasets does not provide has its own module. Some official builders need TensorFlow,
and only to prepare.
"""
