"""Measures the models for Table 1 (`measuring`), and makes pictures of samples (`gallery`)."""
