"""Reads weights that others have published, under our names."""
