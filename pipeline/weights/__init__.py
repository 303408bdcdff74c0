"""Published models, released checkpoints, and the configs that params make."""
