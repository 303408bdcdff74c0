"""Training that resumes after kills: the training loop (`training`), the start with or without Ray
(`run`), checkpoints, the average of weights, and the check for divergence."""
