"""The model card: what the model is, how to use it, and what its own run measured."""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file

from pipeline.api.opening import Opened
from pipeline.api.saved import weights_hash
from pipeline.config.params import load_params
from pipeline.config.paths import RESULTS, TOKENIZER, TRANSFORMER
from pipeline.config.replicates import main_replicate
from pipeline.runtime.dag import PARAMS_FILE
from pipeline.runtime.provenance import has_inputs
from pipeline.runtime.tables import has_param

ROWS = RESULTS / "evaluation/rows.csv"
# Columns of the rows, or how they begin, in the card's order; a name ends with its extractor.
SHOWN = {
    "class_accuracy": "samples recognised as their class",
    "fid_infinity": "FID∞",
    "fid": "FID",
    "is": "IS",
    "precision": "precision",
    "recall": "recall",
    "nll": "NLL of masked tokens",
}
TEMPLATE = """\
---
library_name: maskgit-pipeline
tags:
- class-conditional-image-generation
- maskgit
- masked-image-modeling
- vqgan
---

# MaskGIT: {preset}

Draws {size}×{size} {colours} images of {count} classes, by iterative parallel decoding of \
{grid}×{grid} tokens
(*MaskGIT: Masked Generative Image Transformer*, Chang et al., CVPR 2022). Made by the pipeline
that reproduces the paper, with preset `{preset}`{seed}.

```python
from pipeline import MaskGIT

model = MaskGIT.from_pretrained({name})
images = model.sample({first}, 8, iterations={iterations}, schedule="{schedule}")
model.to_pil(images)[0].save("sample.png")
```

| | |
|---|---|
| transformer | {layers} layers, hidden {hidden}, {heads} heads, {parameters} parameters |
| tokenizer | VQGAN, {codes} codes, 1/{factor} of the side |
| decoding | T = {iterations}, {schedule}, choice temperature {temperature:g} |
| classes | {classes} |

## Measured

{numbers}
"""
EXTRACTORS = """\
In brackets is the network whose features are compared with those of the training images. Only
(inception) is the FID and IS of the literature; the others compare models of the same data."""
NOT_MEASURED = "Nothing: the run that made it had no results of this model."


def measured(opened: Opened) -> dict[str, float]:
    """The metrics of this model's samples: those that it was saved with, or its project's, if they
    are of just this model, data and code."""
    root = opened.project
    if root is None:
        known = opened.measured_of
        same = known and weights_hash(opened.tokenizer, opened.transformer) == known
        return opened.measured if same else {}
    if not (root / ROWS).exists():
        return {}
    import pandas as pd

    params = load_params(root / PARAMS_FILE)
    changed = opened.seed is not None and opened.seed not in params.evaluation.seeds
    if changed or not has_inputs("evaluate", (TOKENIZER, TRANSFORMER), root):
        return {}
    transformer = root / main_replicate(params, "transformer", opened.seed).folder
    if not _lie_there(opened, root / TOKENIZER, transformer):
        return {}
    rows, smoothing = pd.read_csv(root / ROWS), params.training.label_smoothing
    main = rows[(rows["images"] == "transformer") & has_param(rows["label_smoothing"], smoothing)]
    own = main[main["seed"] == opened.seed]
    if len(own) != 1:
        return {}
    return {
        name: float(value)
        for name, value in own.iloc[0].items()
        if _title(str(name)) and not math.isnan(value)
    }


def _lie_there(opened: Opened, tokenizer: Path, transformer: Path) -> bool:
    """Whether the model's weights are those of these folders: since it was opened either may have
    changed."""
    for network, folder in ((opened.tokenizer, tokenizer), (opened.transformer, transformer)):
        weights, there = network.state_dict(), load_file(folder / "model.safetensors")
        if weights.keys() != there.keys():
            return False
        for name, value in weights.items():
            if value.dtype != there[name].dtype or not torch.equal(there[name], value.cpu()):
                return False
    return True


def _quoted(text: str) -> str:
    """A text as a string of Python's, in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def card(opened: Opened, name: str, values: dict[str, float]) -> str:
    """The card as Markdown.

    Args:
        name: by which the model is opened.
    """
    transformer, tokenizer = opened.transformer.config, opened.tokenizer.config
    grid, decoding = math.isqrt(transformer.num_tokens), opened.defaults.decoding
    parameters = sum(p.numel() for p in opened.transformer.parameters())
    return TEMPLATE.format(
        name=_quoted(name),
        size=grid * tokenizer.downsampling,
        colours="grey" if tokenizer.channels == 1 else "RGB",
        count=len(opened.classes),
        grid=grid,
        preset=opened.preset,
        seed="" if opened.seed is None else f" and seed {opened.seed}",
        first=_quoted(opened.classes[0]),
        iterations=decoding.iterations,
        schedule=decoding.schedule,
        temperature=decoding.choice_temperature,
        layers=transformer.layers,
        hidden=transformer.hidden,
        heads=transformer.heads,
        parameters=f"{parameters:,}",
        codes=tokenizer.codebook_size,
        factor=tokenizer.downsampling,
        classes=_listed(opened.classes),
        numbers=_table(values),
    )


def _title(column: str) -> str | None:
    if column.endswith("_std") or column == "is_splits":
        return None
    kind = _kind(column)
    if kind is None or kind == column:
        return SHOWN.get(column)
    return f"{SHOWN[kind]} ({column.removeprefix(f'{kind}_')})"


def _table(values: dict[str, float]) -> str:
    """Of the metrics that are known; a saved model that others made may have more."""
    known = [column for column in values if _title(column)]
    if not known:
        return NOT_MEASURED
    known.sort(key=lambda column: list(SHOWN).index(str(_kind(column))))
    lines = [f"| {_title(column)} | {values[column]:.4g} |" for column in known]
    return "\n".join(["| metric of its samples | value |", "|---|---|", *lines, "", EXTRACTORS])


def _kind(column: str) -> str | None:
    """The longest of `SHOWN` that the column is, or begins with; None of one that is not known."""
    known = [kind for kind in SHOWN if column == kind or column.startswith(f"{kind}_")]
    return max(known, key=len, default=None)


def _listed(names: tuple[str, ...], most: int = 20) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
