"""Implements the commands of `maskgit`."""
