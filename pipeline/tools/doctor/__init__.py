"""`maskgit doctor`: is this machine, and this folder, ready for a run?"""
