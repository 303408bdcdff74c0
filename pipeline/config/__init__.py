"""The typed params, presets and paths: what the rest is told."""
