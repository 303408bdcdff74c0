"""Defines the commands of `maskgit`. `pipeline/tools` and `pipeline/api` do the work."""

from pipeline.runtime.process import set_up

set_up()  # before a command imports large libraries
