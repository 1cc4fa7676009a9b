"""Whole boxes, made for real: by the Python interface and by the command line."""
