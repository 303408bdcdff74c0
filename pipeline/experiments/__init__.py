"""Runs the paper's experiments, one module per stage."""
