"""Filtering: scores of image-text pairs, and what of a pool is kept by them."""
