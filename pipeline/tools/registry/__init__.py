"""MLflow's model registry: the model of the last run as a version there (`register`), and what
serves it (`served`)."""
