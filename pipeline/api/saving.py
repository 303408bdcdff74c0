"""Writing a model as a folder that others open (`saved` says what is in it)."""

from pathlib import Path

import torch
from pydantic import ValidationError

from pipeline.api.card import card, measured
from pipeline.api.numbers import a_path, require_apart, require_name
from pipeline.api.opening import Opened
from pipeline.api.saved import (
    CARD,
    CONFIG,
    FILES,
    TOKENIZER_FOLDER,
    TRANSFORMER_FOLDER,
    WEIGHTS,
    Description,
    identity,
    is_saved,
    mistake,
)
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import atomic_folder, file_hash, write_text
from pipeline.weights.published import not_finite, save_model


def save(opened: Opened, folder: Path, name: str) -> Path:
    """Write the folder, whole or not at all.

    Args:
        name: by which the card says the model is opened.

    Raises:
        UserError: something else than a saved model lies there, a stage makes what does, it cannot
            be written, or it would not be opened again, as with weights that are NaN.
    """
    require_free(folder)
    values = measured(opened)
    description = _description(opened, folder, values)
    networks = {
        TOKENIZER_FOLDER: ("tokenizer", opened.tokenizer),
        TRANSFORMER_FOLDER: ("transformer", opened.transformer),
    }
    hashes = {}
    with atomic_folder(folder) as temporary:
        for part, (kind, network) in networks.items():
            # In float32, as a model is opened, whatever the caller made of it.
            weights = {k: v.to("cpu", torch.float32) for k, v in network.state_dict().items()}
            if bad := not_finite(weights):
                raise UserError(
                    f"{folder}: {bad} of the {kind} holds values that are NaN or infinite, so it "
                    f"is not saved; open the model anew"
                )
            save_model(temporary / part, kind, network.config, weights)
            hashes[part] = file_hash(temporary / part / WEIGHTS)
        description = description.model_copy(update={"weights": hashes})
        write_text(temporary / CONFIG, description.model_dump_json(indent=2) + "\n")
        write_text(temporary / CARD, card(opened, name, values))
        require_free(folder)  # another process may have made it meanwhile
    return folder


def _description(opened: Opened, folder: Path, values: dict[str, float]) -> Description:
    """Raises: UserError: with it, the model would not be opened again."""
    unopened = f"{folder} would be no model that can be opened"
    try:
        description = Description(
            format="maskgit-pipeline 1",
            classes=list(opened.classes),
            defaults=opened.defaults,
            preset=opened.preset,
            seed=opened.seed,
            measured=values,
            measured_with=identity(
                opened.tokenizer.config,
                opened.transformer.config,
                opened.classes,
                opened.defaults.decoding,
            ),
        )
    except ValidationError as error:
        raise UserError(f"{unopened} ({mistake(error)}); give another value") from error
    tokens, factor = opened.transformer.config.num_tokens, opened.tokenizer.config.downsampling
    if wrong := opened.defaults.too_wide(tokens, factor):
        raise UserError(  # params.yaml has changed since the networks were trained
            f"{unopened} ({wrong}): params.yaml is not what the networks were trained with; run "
            f"`dvc repro`, or bring it back, then open them again"
        )
    return description


def require_free(folder: Path, key: str = "folder") -> None:
    """Look whether a model may be saved there.

    Args:
        key: what the folder is called, for messages.

    Raises:
        UserError: something else than a saved model lies there, or a stage makes what does.
    """
    require_apart(key, a_path(key, folder))
    require_name(key, folder)
    if folder.exists() and not _holds_nothing_else(folder):
        raise UserError(f"{folder} is there already and no saved model; give a new folder")


def _holds_nothing_else(folder: Path) -> bool:
    """Whether it is a folder that may be replaced: empty, or a saved model by its config.json and
    with nothing besides. No more is looked at than one has, since it may be a whole disk."""
    if not folder.is_dir() or folder.is_symlink():
        return False
    folders = {TOKENIZER_FOLDER, TRANSFORMER_FOLDER}
    try:
        inside = [path for part in folders for path in (folder / part).glob("*")]
        found = {p.relative_to(folder).as_posix() for p in [*folder.iterdir(), *inside]}
        known = found <= {*FILES, *folders}
        right = known and all(
            (folder / name).is_dir() if name in folders else (folder / name).is_file()
            for name in found
        )
    except OSError:  # it may not be read
        return False
    return not found or (right and is_saved(folder))
