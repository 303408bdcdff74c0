"""How fast the pipeline's own code runs here, beside what plain matrix products reach."""
