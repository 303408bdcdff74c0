"""Training that resumes after kills: the training loop (`training`), how it starts with or without
Ray (`run`), checkpoints, averages of weights, and a check for divergence."""
