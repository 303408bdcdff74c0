"""A stage that is run alone takes no network of other params."""

import dataclasses
import json

import pytest

from pipeline.config.networks import check_networks
from pipeline.config.params import Params
from pipeline.config.paths import AUTOREGRESSIVE, CLASSIFIER, TOKENIZER, TRANSFORMER
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import write_json, write_text
from pipeline.weights.configs import classifier_config, tokenizer_config, transformer_config

READ = [str(folder) for folder in (CLASSIFIER, TOKENIZER, TRANSFORMER / "main", AUTOREGRESSIVE)]


def check(read: list[str], params: Params) -> None:
    write_text("params.yaml", json.dumps(params.model_dump()))
    check_networks(read)


@pytest.fixture
def published(make_params, tmp_path, monkeypatch):
    """The configs of the default's networks."""
    monkeypatch.chdir(tmp_path)
    params = make_params()
    of_tokens = transformer_config(params, 10)
    for folder, kind, config in (
        (CLASSIFIER, "classifier", classifier_config(params, 10)),
        (TOKENIZER, "tokenizer", tokenizer_config(params)),
        (TRANSFORMER / "main/seed0", "transformer", of_tokens),
        (AUTOREGRESSIVE / "main/seed0", "autoregressive", of_tokens),
    ):
        write_json(folder / "config.json", {"kind": kind} | dataclasses.asdict(config))
    return tmp_path


def test_those_that_the_params_describe_are_taken(published, make_params):
    check(READ, make_params())
    check(READ, make_params(training={"steps": 7}, evaluation={"seeds": [0, 5]}))


@pytest.mark.parametrize("read", [READ[0], READ[2], READ[3]])
def test_those_of_other_classes_than_the_images_are_refused(published, make_params, read):
    write_json("data/images/manifest.json", {"class_names": ["a", "b", "c"]})
    with pytest.raises(UserError, match=r"knows 10 classes, where data/images has 3; run `dvc"):
        check([read], make_params())
    check([READ[1]], make_params())  # a tokenizer knows none
    write_json("data/images/manifest.json", {"class_names": 5})  # of which others tell
    check([read], make_params())


@pytest.mark.parametrize(
    ("changes", "read", "said"),
    [
        (
            {"data": {"channels": 3}},
            "models/classifier",
            r"^models/classifier has channels 1, where params.yaml asks for 3; run `dvc repro "
            r"train_classifier`$",
        ),
        (
            {"classifier": {"width": 32}},
            "models/classifier",
            "models/classifier has width 16, .* 32; ",
        ),
        ({"tokenizer": {"codebook_size": 128}}, "models/tokenizer", "codebook_size 64, .* 128"),
        (
            {"tokenizer": {"multipliers": [1, 2, 2]}},
            "models/tokenizer",
            r"multipliers \[.* train_to",
        ),
        (
            {"data": {"image_size": 32}},
            "models/transformer/main",
            r"models/transformer/main/seed0 has num_tokens 49, .* 64; run `dvc repro train_tra",
        ),
        (
            {"transformer": {"layers": 3}},
            "models/autoregressive",
            "layers .* train_autoregressive`",
        ),
    ],
)
def test_one_of_other_params_is_refused_where_it_is_read(
    published, make_params, changes, read, said
):
    params = make_params(**changes)
    with pytest.raises(UserError, match=said):
        check([read], params)
    check(["data/images"], params)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", *(f'{{"kind": {kind}, "channels": 9}}' for kind in ("5", "[]", "{}"))]
)
def test_what_is_damaged_is_left_to_who_loads_it(published, make_params, text):
    (published / TOKENIZER / "config.json").write_text(text)
    check(READ, make_params())
    (published / TOKENIZER / "config.json").unlink()
    check(READ, make_params())
