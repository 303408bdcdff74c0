"""The typed params, presets and paths."""
