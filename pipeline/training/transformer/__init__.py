"""Training a transformer: the steps of a worker (`task`), and a training as a whole, which leaves a
model (`job`, `model`)."""

from pipeline.training.transformer.task import TransformerTask

__all__ = ["TransformerTask"]
