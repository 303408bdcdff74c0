"""The command line `maskgit`; what its commands do is in `pipeline/tools` and `pipeline/api`."""
