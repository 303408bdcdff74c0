"""Trainings that survive kills: the training and its loop (`training`), running it (`run`),
checkpoints, averaged weights, and losses that diverge (`divergence`)."""
