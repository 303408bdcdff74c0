"""One script for each stage of the DAG. `main` takes params, calls the library and writes outputs;
`python -m stages <name>` runs a stage."""

from pipeline.runtime.process import set_up

set_up()  # before a stage imports torch
