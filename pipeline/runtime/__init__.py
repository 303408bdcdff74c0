"""Everything that is independent of the paper: files, run directories, MLflow, Ray, progress."""
