"""Table 1: everything that is measured (`measuring`) and pictured (`gallery`) of the models."""
