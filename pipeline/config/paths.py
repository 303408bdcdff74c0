"""Defines the output paths of DVC's stages, and checks that files named in params exist."""

from pathlib import Path
from typing import Any

from pipeline.runtime.dag import FILE_PARAMS, flatten, stage_params, stages_from
from pipeline.runtime.errors import UserError
from pipeline.runtime.project import of_project

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
# OUTPUTS: folders that DVC deletes before it runs a stage. CODE, below: folders that DVC hashes.
OUTPUTS: tuple[Path, ...] = (IMAGES, TOKENS, FEATURES, CURVES, SAMPLES, RESULTS)
OUTPUTS += (CLASSIFIER, TOKENIZER, TRANSFORMER, AUTOREGRESSIVE)
TORCHVISION = "torchvision"  # value of `classifier.pretrained` that is not a file
CODE = (Path("pipeline"), Path("stages"), Path("analysis"))


def check_files(params: dict[str, Any], stage: str) -> None:
    """Raise a `UserError` if the params of `stage`, or of a stage that depends on `stage`, name a
    file that is missing. `params` are all params, as `Params.model_dump()` returns them."""
    values = flatten(params)
    # The stage `analysis` lists all params, but reads none of the files named in them.
    read = {key for reader in stages_from(stage) - {"analysis"} for key in stage_params(reader)}
    for key in FILE_PARAMS:
        file = values[key]
        if key in read and file not in (None, TORCHVISION) and not of_project(file).is_file():
            raise UserError(key, f"{file} is not a file", "give the path of a file, or null")
