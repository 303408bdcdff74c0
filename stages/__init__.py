"""One thin script for each stage of the DAG: it reads params, calls the library and writes outputs;
`python -m stages.<name>`."""

from pipeline.runtime.process import set_up

set_up()  # before a stage imports torch
