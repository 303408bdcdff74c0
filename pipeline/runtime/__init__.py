"""The parts that know nothing of the paper: files, run directories, MLflow, Ray, progress."""
