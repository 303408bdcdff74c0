"""Defines the commands of `maskgit`. The code in `pipeline/tools` and `pipeline/api` does the work
of the commands."""

from pipeline.runtime.process import set_up

set_up()  # before a command imports large libraries
