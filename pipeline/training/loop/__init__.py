"""The training loop, which resumes after kills: its start with or without Ray, checkpoints, moving
averages of weights, and a check for divergence."""
