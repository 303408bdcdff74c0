"""The published networks that a stage reads must be those that the params describe."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.config.paths import AUTOREGRESSIVE, CLASSIFIER, IMAGES, TOKENIZER, TRANSFORMER
from pipeline.runtime.dag import PARAMS_FILE
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_json, read_yaml

# The section of the params that describes a network, by its kind.
SECTIONS = {
    "classifier": "classifier",
    "tokenizer": "tokenizer",
    "transformer": "transformer",
    "autoregressive": "transformer",
}


def check_networks(read: Iterable[str]) -> None:
    """Refuse networks of other params: what is started by hand, without `dvc repro`, may find some,
    and what it made would be taken for theirs.

    Args:
        read: the files and folders that a stage reads.

    Raises:
        UserError: a network is not what params.yaml describes, which is taken to be valid.
    """
    networks = (CLASSIFIER, TOKENIZER, TRANSFORMER, AUTOREGRESSIVE)
    for folder in map(Path, read):
        if any(folder.is_relative_to(network) for network in networks):
            for file in sorted(folder.rglob("config.json")):
                _check(file)


def _check(file: Path) -> None:
    found = _config(file)
    kind = found.get("kind")
    if not isinstance(kind, str) or kind not in SECTIONS:
        return
    params = read_yaml(PARAMS_FILE)
    tokenizer, data = params["tokenizer"], params["data"]
    side = data["image_size"] // 2 ** (len(tokenizer["multipliers"]) - 1)
    asked = {
        "channels": data["channels"],
        "num_tokens": side**2,
        "codebook_size": tokenizer["codebook_size"],
    }
    asked |= params[SECTIONS[kind]]
    for key in sorted(found.keys() & asked.keys()):
        if found[key] != asked[key]:
            raise UserError(
                f"{file.parent} has {key} {found[key]}, where {PARAMS_FILE} asks for {asked[key]}; "
                f"run `dvc repro train_{kind}`"
            )
    classes = _classes()
    if classes and found.get("num_classes", classes) != classes:
        raise UserError(
            f"{file.parent} knows {found['num_classes']} classes, where {IMAGES} has {classes}; "
            f"run `dvc repro train_{kind}`"
        )


def _classes() -> int:
    """Of the data set; 0 where its list cannot be read: who reads the images says so."""
    with suppress(UserError, OSError):
        names = read_json(IMAGES / "manifest.json", "class_names")["class_names"]
        return len(names) if isinstance(names, list) else 0
    return 0


def _config(file: Path) -> dict[str, Any]:
    """Nothing where it is damaged: who loads the network says so."""
    with suppress(UserError, OSError):
        return dict(read_json(file, "kind"))
    return {}
