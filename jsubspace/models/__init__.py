"""Networks of the paper, in Flax linen, with the reference's initialisation, padding and numerics."""
