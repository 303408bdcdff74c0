"""Where the DAG's outputs lie, in one place for the stages; dvc.yaml declares the same paths."""

from pathlib import Path

IMAGES = Path("data/images")
TOKENS = Path("data/tokens")
FEATURES = Path("data/features")
CURVES = Path("data/schedules")
CLASSIFIER = Path("models/classifier")
TOKENIZER = Path("models/tokenizer")
TRANSFORMER = Path("models/transformer")
AUTOREGRESSIVE = Path("models/autoregressive")
RESULTS = Path("results")
SAMPLES = Path("data/samples")
# What DVC deletes before it runs a stage, and what it hashes to know whether to run it.
OUTPUTS = (
    *(IMAGES, TOKENS, FEATURES, CURVES, SAMPLES, RESULTS),
    *(CLASSIFIER, TOKENIZER, TRANSFORMER, AUTOREGRESSIVE),
)
CODE = (Path("pipeline"), Path("stages"), Path("analysis"))
