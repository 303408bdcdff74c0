"""Readers for images and the token cache, with seeds, batch order and data-parallel workers."""
