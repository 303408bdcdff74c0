"""The files that params name must be there before the work that comes before their use."""

import os

from pipeline.config.params import Params
from pipeline.runtime.dag import FILE_PARAMS, flatten, read_stages, stage_params, stages_up_to
from pipeline.runtime.errors import UserError
from pipeline.runtime.project import of_project

# Of weights that one extractor has, the extractor.
_EXTRACTORS = {"evaluation.inception_weights": "inception", "evaluation.vgg_weights": "vgg"}


def check_files(params: Params, stage: str | None = None) -> None:
    """Refuse a file that is not there, if it is read by the stage or by one that stands on it; by
    any stage for None.

    Raises:
        UserError: it is missing or no file; the line names the param.
    """
    if not (used := _used(params)):
        return
    # The analysis, which lists all params, reads none of them.
    readers = {s for s in read_stages() if stage in (None, *stages_up_to(s))} - {"analysis"}
    read = {key for reader in readers for key in stage_params(reader)}
    for key in sorted(used.keys() & read):
        if not os.path.exists(of_project(used[key])):
            raise UserError(f"{key}: {used[key]} does not exist; give the path of a file, or null")


def _used(params: Params) -> dict[str, str]:
    """The files that params name and that are read, by the param's key."""
    values = flatten(params.model_dump())
    extractors = (params.evaluation.extractor, params.evaluation.second_extractor)
    named = [key for key in FILE_PARAMS if values[key]]
    return {key: values[key] for key in named if _EXTRACTORS.get(key, extractors[0]) in extractors}
