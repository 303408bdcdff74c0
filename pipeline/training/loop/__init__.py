"""The training loop and its helpers: starting a run with or without Ray, checkpoints from which a
killed run resumes, moving averages of weights, and a check for divergence."""
