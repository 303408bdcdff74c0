"""Loads published models and released checkpoints, and configures networks from params."""
