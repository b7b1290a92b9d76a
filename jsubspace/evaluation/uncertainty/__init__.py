"""What the predictions of a classifier say about their own errors: one idea a file."""
