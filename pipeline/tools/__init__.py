"""The work behind the commands of `maskgit`."""
