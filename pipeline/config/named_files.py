"""The files that params name must be there before the work that comes before their use."""

from pipeline.runtime.dag import (
    FILE_PARAMS,
    PARAMS_FILE,
    flatten,
    read_stages,
    stage_params,
    stages_from,
)
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_yaml, require_file
from pipeline.runtime.project import of_project

# Of weights that one extractor has, the extractor.
_EXTRACTORS = {"evaluation.inception_weights": "inception", "evaluation.vgg_weights": "vgg"}


def check_files(stage: str | None = None) -> None:
    """Refuse a file that is not there, if it is read by the stage or by one that stands on it; by
    any stage for None.

    Raises:
        UserError: a file that params.yaml names, which is taken to be valid, is missing or none;
            the line names the param.
    """
    if not (used := _used()):
        return
    # The analysis, which lists all params, reads none of them.
    readers = (stages_from(stage) if stage else set(read_stages())) - {"analysis"}
    read = {key for reader in readers for key in stage_params(reader)}
    for key in sorted(used.keys() & read):
        try:
            require_file(of_project(used[key]))
        except FileNotFoundError:
            raise UserError(
                f"{key}: {used[key]} does not exist; give the path of a file, or null"
            ) from None
        except UserError as error:
            raise UserError(f"{key}: {error}") from error


def _used() -> dict[str, str]:
    """The files that are read, by the key of the param that names each."""
    values = flatten(read_yaml(PARAMS_FILE))
    extractors = (values["evaluation.extractor"], values["evaluation.second_extractor"])
    named = [key for key in FILE_PARAMS if values[key]]
    return {key: values[key] for key in named if _EXTRACTORS.get(key, extractors[0]) in extractors}
