"""Defines the command line `maskgit`. `pipeline/tools` and `pipeline/api` do the work of its
commands."""

from pipeline.runtime.process import set_up

set_up()  # before a command imports anything that takes long
