"""Saves and loads models, loads checkpoints that others released, and builds network configs."""
