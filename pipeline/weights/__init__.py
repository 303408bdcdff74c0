"""Published models, released checkpoints, and the configurations that follow from params."""
