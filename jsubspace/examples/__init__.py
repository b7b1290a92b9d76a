"""Networks, data and a loop that the guides, the notebooks and the tests share. Nothing else of the library uses them."""
