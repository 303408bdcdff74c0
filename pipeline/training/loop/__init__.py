"""The training loop and its parts: the start with or without Ray, checkpoints (from which a killed
run resumes), moving averages of weights, and a check for divergence."""
