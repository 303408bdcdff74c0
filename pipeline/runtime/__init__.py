"""Everything that is not science: files, run directories, MLflow, Ray, progress."""
