"""The paths of the DAG's outputs, as in dvc.yaml, and a check of the files that params name."""

from pathlib import Path
from typing import Any

from pipeline.runtime.dag import FILE_PARAMS, flatten, read_stages, stage_params, stages_from
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import require_file
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
# The outputs that DVC deletes before it runs a stage, and the code that it hashes.
OUTPUTS: tuple[Path, ...] = (IMAGES, TOKENS, FEATURES, CURVES, SAMPLES, RESULTS)
OUTPUTS += (CLASSIFIER, TOKENIZER, TRANSFORMER, AUTOREGRESSIVE)
TORCHVISION = "torchvision"  # `classifier.pretrained` without a file
CODE = (Path("pipeline"), Path("stages"), Path("analysis"))


def check_files(params: dict[str, Any], stage: str | None = None) -> None:
    """Check that the files exist which params name and which a stage, or one that depends on it,
    reads: a missing file must stop the work before hours of it are done.

    Args:
        params: as `Params.model_dump()` gives them.
        stage: None for every stage.

    Raises:
        UserError: a file is missing, or not a regular file.
    """
    values = flatten(params)
    named = {key: values[key] for key in FILE_PARAMS if values[key] not in (None, TORCHVISION)}
    extractors = {values["evaluation.extractor"], values["evaluation.second_extractor"]}
    for extractor in {"inception", "vgg"} - extractors:
        named.pop(f"evaluation.{extractor}_weights", None)
    # The analysis lists all params and reads no file that they name.
    readers = (stages_from(stage) if stage else set(read_stages())) - {"analysis"}
    for key, file in named.items():
        if any(key in stage_params(reader) for reader in readers):
            try:
                require_file(of_project(file))
            except FileNotFoundError:
                raise UserError(key, f"{file} does not exist", "give a file, or null") from None
            except UserError as error:
                raise UserError(key, str(error)) from error
