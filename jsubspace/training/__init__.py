"""One step of training, and how it runs on many devices and hosts."""
