"""Reads images and the token cache."""
