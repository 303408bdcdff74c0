"""Loads weights that others have published, and renames them for this project's networks."""
