"""`maskgit scale`: the quality of both networks against what is spent on them. The cells
that are asked for (`grid`), training through all step counts (`training`), samples and their
metrics (`measuring`), and the file of rows that a run goes on from (`rows`)."""

from pipeline.tools.scale.grid import BASELINE, Decoding, Grid, Training
from pipeline.tools.scale.measuring import scale

__all__ = ["BASELINE", "Decoding", "Grid", "Training", "scale"]
