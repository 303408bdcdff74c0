"""Saves a model as a folder for others: safetensors, JSON and a model card.

config.json              classes, the values it decodes with, what was measured
README.md                the model card
tokenizer/, transformer/ each with model.safetensors and its config.json
"""

FILES = ["*.json", "*.safetensors", "README.md"]  # all that is downloaded: nothing to execute
CARD = """\
---
{{ card_data }}
---

# MaskGIT: {{ about.preset }}

{%- set tokenizer = opened.tokenizer.config %}
{%- set transformer = opened.transformer.config %}
{%- set decoding = about.defaults.decoding %}
{%- set grid = (transformer.num_tokens ** 0.5) | int %}
{%- set side = grid * tokenizer.downsampling %}

Draws {{ side }}×{{ side }} {{ "grey" if tokenizer.channels == 1 else "RGB" }} images of
{{ about.classes | length }} classes, by iterative parallel decoding of {{ grid }}×{{ grid }}
tokens (*MaskGIT: Masked Generative Image Transformer*, Chang et al., CVPR 2022). Made by the
pipeline that reproduces the paper, with preset `{{ about.preset }}`
{%- if about.seed is not none %} and seed {{ about.seed }}{% endif %}.
{%- if about.barely_trained %}

**Barely trained**: the classifier recognises its samples hardly more often than by chance.
{%- endif %}

```python
from pipeline import MaskGIT

model = MaskGIT.from_pretrained({{ name | tojson }})
images = model.sample({{ about.classes[0] | tojson }}, 8)
model.to_pil(images)[0].save("sample.png")
```

| | |
|---|---|
| transformer | {{ transformer.layers }} layers, hidden {{ transformer.hidden }}, \
{{ transformer.heads }} heads{% if about.steps %}, {{ about.steps }} steps{% endif %} |
| tokenizer | VQGAN, {{ tokenizer.codebook_size }} codes, \
1/{{ tokenizer.downsampling }} of the side |
| decoding | T = {{ decoding.iterations }}, {{ decoding.schedule }}, \
choice temperature {{ decoding.choice_temperature }} |
| classes | {{ about.classes[:20] | join(", ") }}{{ ", …" if about.classes | length > 20 }} |

## Measured

{% if about.measured -%}
| metric of its samples | value |
|---|---|
{%- for name, value in about.measured.items() %}
| {{ name }} | {{ "%.4g" | format(value) }} |
{%- endfor %}

Only FID and IS of Inception's features (`fid_inception`, `is_inception`) are those of the
literature; those of other networks compare models of the same data.
{%- else -%}
Nothing: the run that made it had no results of this model.
{%- endif %}
"""
