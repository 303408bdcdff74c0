"""One thin script for each stage of the DAG: it reads params, calls the library and writes outputs;
`python -m stages.<name>`."""

import gc

# The libraries that a stage imports make objects by the hundred thousand, which stay: looking
# through them for garbage every 700 was a second of each stage's start.
gc.set_threshold(10_000)
