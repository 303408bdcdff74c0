"""What the commands of `maskgit` do."""
