"""The command line `maskgit`. The work of its commands is in `pipeline/tools` and
`pipeline/api`."""

from pipeline.runtime.process import set_up

set_up()  # before a command imports anything that takes long
