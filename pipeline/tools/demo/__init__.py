"""`maskgit demo`: a page to play with a model. What it draws, how it looks, how it is served."""
