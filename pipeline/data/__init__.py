"""Reads images and tokens, orders batches, derives seeds and connects data-parallel workers."""
