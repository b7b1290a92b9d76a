"""Networks of the paper, in Flax linen, with the initialisation, padding and numerics of the authors' program."""
