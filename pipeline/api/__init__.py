"""MaskGIT for use from Python: `from pipeline import MaskGIT`."""
