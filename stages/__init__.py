"""One script for each DVC stage. A script's `main` takes params, calls `pipeline` and writes the
stage's outputs; `python -m stages <name>` runs the stage."""

from pipeline.runtime.process import set_up

set_up()  # before a stage imports torch
