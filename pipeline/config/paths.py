"""Where the DAG's outputs lie, in one place for the stages; dvc.yaml declares the same paths."""

from pathlib import Path

IMAGES = Path("data/images")
TOKENS = Path("data/tokens")
CURVES = Path("data/schedules")
CLASSIFIER = Path("models/classifier")
TOKENIZER = Path("models/tokenizer")
TRANSFORMER = Path("models/transformer")
AUTOREGRESSIVE = Path("models/autoregressive")
RESULTS = Path("results")
SAMPLES = Path("data/samples")
