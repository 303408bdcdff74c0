"""Tables and figures of the reproduction, made from result files alone (`python -m analysis`)."""

from pipeline.runtime.process import set_up

set_up()  # before a table or figure imports torch, SciPy and the like
