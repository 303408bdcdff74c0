"""Weights that others have published: their formats, their names, and our networks with them."""
