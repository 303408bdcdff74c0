"""The DAG, or a stage of it, as a job on a Ray cluster."""
