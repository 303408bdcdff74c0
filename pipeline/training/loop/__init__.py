"""Runs trainings that resume after kills: the loop (`training`), its start with or without Ray
(`run`), checkpoints, the average of weights, and the check for divergence."""
