"""Iterative decoding (paper, section 3.2), with the samplers and settings of later work."""
