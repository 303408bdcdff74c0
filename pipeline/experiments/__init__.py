"""The experiments of the paper, a module for each stage that runs one."""
