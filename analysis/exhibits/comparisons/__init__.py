"""What the paper claims, set against the result files: one module for each of its subjects."""
