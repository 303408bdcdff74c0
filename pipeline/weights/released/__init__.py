"""Reads weights that others have published: file formats, tensor names, and loading into our
networks."""
