"""The published networks that a stage reads must be those that the params describe."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER, TOKENIZER
from pipeline.config.replicates import NETWORKS, replicates
from pipeline.runtime.dag import PARAMS_FILE
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_json
from pipeline.runtime.limits import CONFIG_BYTES


def check_networks(read: Iterable[str], params: Params) -> None:
    """Refuse networks of other params: what is started by hand, without `dvc repro`, may find some,
    and what it made would be taken for theirs.

    Args:
        read: the files and folders that a stage reads.

    Raises:
        UserError: a network is not what the params describe.
    """
    folders = [CLASSIFIER, TOKENIZER]
    folders += [r.folder for network in NETWORKS for r in replicates(params, network)]
    for folder in folders:
        if any(folder.is_relative_to(dep) for dep in read):
            _check(folder, params)


def _check(folder: Path, params: Params) -> None:
    found = _config(folder)
    if not found:
        return
    kind = found["kind"]
    asked = {
        "channels": params.data.channels,
        "num_tokens": params.num_tokens,
        "codebook_size": params.tokenizer.codebook_size,
    }
    asked |= getattr(params, "transformer" if kind in NETWORKS else kind).model_dump()
    for key in sorted(found.keys() & asked.keys()):
        if found[key] != asked[key]:
            raise UserError(
                f"{folder} has {key} {found[key]}, where {PARAMS_FILE} asks for {asked[key]}; run "
                f"`dvc repro train_{kind}`"
            )


def _config(folder: Path) -> dict[str, Any]:
    """Nothing where it is missing or damaged: who loads the network says so."""
    with suppress(UserError, OSError):
        found = read_json(folder / "config.json", "kind", most=CONFIG_BYTES)
        if found["kind"] in ["classifier", "tokenizer", *NETWORKS]:
            return dict(found)
    return {}
