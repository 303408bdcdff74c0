"""Defines the params, the presets, the output paths and the replicates (training runs)."""
