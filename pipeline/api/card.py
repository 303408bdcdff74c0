"""The template of the model card (README.md) that `save_pretrained` writes, and the patterns of
the file names that are downloaded from the Hugging Face Hub."""

FILES = ["*.json", "*.safetensors", "README.md"]  # no other file, and so no code, is downloaded
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

This model draws {{ side }}×{{ side }} {{ "grey" if tokenizer.channels == 1 else "RGB" }} images of
{{ about.classes | length }} classes, by iterative parallel decoding of {{ grid }}×{{ grid }}
tokens (*MaskGIT: Masked Generative Image Transformer*, Chang et al., CVPR 2022). The model was
made by the pipeline that reproduces the paper, with preset `{{ about.preset }}`
{%- if about.seed is not none %} and seed {{ about.seed }}{% endif %}.
{%- if about.barely_trained %}

**Barely trained**: the classifier recognises this model's samples hardly more often than by chance.
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
downsampling by {{ tokenizer.downsampling }} |
| decoding | T = {{ decoding.iterations }}, {{ decoding.schedule }}, \
choice temperature {{ decoding.choice_temperature }} |
| classes | {{ about.classes[:20] | join(", ") }}{{ ", …" if about.classes | length > 20 }} |

## Measured

{% if about.measured -%}
| metric of the samples | value |
|---|---|
{%- for name, value in about.measured.items() %}
| {{ name }} | {{ "%.4g" | format(value) }} |
{%- endfor %}

Only FID and IS with Inception's features (`fid_inception`, `is_inception`) can be compared
with the literature; with other features, compare FID and IS only between models of the same data.
{%- else -%}
Nothing: there are no results for these weights.
{%- endif %}
"""
