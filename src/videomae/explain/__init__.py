"""Where in a clip a classifier's decision comes from."""
