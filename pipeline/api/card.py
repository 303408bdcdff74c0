"""Saves a model as a folder for others: safetensors, JSON and a model card.

config.json              classes, the values it decodes with, what was measured
README.md                the model card
tokenizer/, transformer/ each with model.safetensors and its config.json
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from pipeline.api.opening import CONFIG, Description, Opened, read_description
from pipeline.config.params import load_params
from pipeline.config.paths import RESULTS, TOKENIZER, TRANSFORMER
from pipeline.runtime.dag import PARAMS_FILE
from pipeline.runtime.provenance import has_inputs
from pipeline.runtime.tables import has_param
from pipeline.weights.published import WEIGHTS

PARTS = [f"{d}/{f}" for d in ("tokenizer", "transformer") for f in ("config.json", WEIGHTS)]
FILES = [CONFIG, "README.md", *PARTS]
ROWS = RESULTS / "evaluation/rows.csv"
# The first words of the columns of the rows that the card shows (docs/metrics.md).
SHOWN = ("class_accuracy", "fid", "is", "precision", "recall", "nll")
CARD = """\
---
{{ card_data }}
---

# MaskGIT: {{ opened.preset }}

{%- set tokenizer = opened.tokenizer.config %}
{%- set transformer = opened.transformer.config %}
{%- set decoding = opened.defaults.decoding %}
{%- set grid = (transformer.num_tokens ** 0.5) | int %}
{%- set side = grid * tokenizer.downsampling %}

Draws {{ side }}×{{ side }} {{ "grey" if tokenizer.channels == 1 else "RGB" }} images of
{{ opened.classes | length }} classes, by iterative parallel decoding of {{ grid }}×{{ grid }}
tokens (*MaskGIT: Masked Generative Image Transformer*, Chang et al., CVPR 2022). Made by the
pipeline that reproduces the paper, with preset `{{ opened.preset }}`
{%- if opened.seed is not none %} and seed {{ opened.seed }}{% endif %}.

```python
from pipeline import MaskGIT

model = MaskGIT.from_pretrained({{ name | tojson }})
images = model.sample({{ opened.classes[0] | tojson }}, 8)
model.to_pil(images)[0].save("sample.png")
```

| | |
|---|---|
| transformer | {{ transformer.layers }} layers, hidden {{ transformer.hidden }}, \
{{ transformer.heads }} heads |
| tokenizer | VQGAN, {{ tokenizer.codebook_size }} codes, \
1/{{ tokenizer.downsampling }} of the side |
| decoding | T = {{ decoding.iterations }}, {{ decoding.schedule }}, \
choice temperature {{ decoding.choice_temperature }} |
| classes | {{ opened.classes[:20] | join(", ") }}{{ ", …" if opened.classes | length > 20 }} |

## Measured

{% if measured -%}
| metric of its samples | value |
|---|---|
{%- for name, value in measured.items() %}
| {{ name }} | {{ "%.4g" | format(value) }} |
{%- endfor %}

Only FID and IS of Inception's features (`fid_inception`, `is_inception`) are those of the
literature; those of other networks compare models of the same data.
{%- else -%}
Nothing: the run that made it had no results of this model.
{%- endif %}
"""


def describe(opened: Opened) -> dict[str, Any]:
    """config.json of a saved model."""
    known = Description(
        classes=list(opened.classes),
        defaults=opened.defaults,
        preset=opened.preset,
        seed=opened.seed,
        measured=measured(opened),
    )
    return known.model_dump(mode="json")


def measured(opened: Opened) -> dict[str, float]:
    """The metrics of this model's samples, by its project's results or by the saved folder that it
    was opened from. Empty if its weights or the results have changed since."""
    networks = opened.tokenizer, opened.transformer
    if not opened.folders or not all(map(_same_weights, networks, opened.folders)):
        return {}
    if (root := opened.project) is None:
        return read_description(opened.folders[0].parent / CONFIG).measured
    if not (root / ROWS).exists() or not has_inputs("evaluate", (TOKENIZER, TRANSFORMER), root):
        return {}
    import pandas as pd

    rows, smoothing = pd.read_csv(root / ROWS), load_params(root / PARAMS_FILE).training
    main = has_param(rows["label_smoothing"], smoothing.label_smoothing)
    own = rows[(rows["images"] == "transformer") & main & (rows["seed"] == opened.seed)]
    values = own.iloc[0].items() if len(own) == 1 else ()
    return {
        str(name): float(value)
        for name, value in values
        if name.startswith(SHOWN) and not name.endswith(("_std", "_splits")) and value == value
    }


def _same_weights(network: nn.Module, folder: Path) -> bool:
    """Whether a network still has the weights of the published model that it was opened from."""
    if not (folder / WEIGHTS).exists():
        return False
    own, there = network.state_dict(), load_file(folder / WEIGHTS)
    return own.keys() == there.keys() and all(
        torch.equal(v.to("cpu", there[k].dtype), there[k]) for k, v in own.items()
    )
