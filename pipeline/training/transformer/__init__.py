"""Training a transformer: the steps of a worker (`task`), under Ray Train (`ray_train`) or in this
process alone (`alone`)."""

from pipeline.training.transformer.task import TransformerTask

__all__ = ["TransformerTask"]
