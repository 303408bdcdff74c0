"""`python -m stages <name>` runs a stage of dvc.yaml."""

import sys

from stages.running import run_stage

run_stage("".join(sys.argv[1:2]))
