"""Table 1: measurements (`measuring`) and pictures (`gallery`) of the models."""
