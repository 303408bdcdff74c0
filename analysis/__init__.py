"""Tables and figures of the reproduction, made from result files alone (`python -m analysis`)."""

import os

from pipeline.runtime.process import set_up

os.environ["MPLBACKEND"] = "agg"  # figures are only saved, whatever backend the user sets
set_up()  # before a table or figure imports torch, SciPy and the like
