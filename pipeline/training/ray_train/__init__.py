"""Training the two transformers under Ray Train: the run (`fit`), and its outputs (`networks`)."""
