"""The benchmarks run, on the smallest preset."""

import re

import pytest

from benchmarks.__main__ import main


@pytest.mark.slow
def test_every_case_has_a_time_and_a_rate(capsys):
    main(["smoke"], seconds=0.0)
    rows = re.findall(r"^(.+?)  +[\d.]+ s +[\d.,]+ +([\d,]+)$", capsys.readouterr().out, re.M)
    names = " ".join(name for name, _ in rows)
    for case in ("product", "training step", "decoding", "autoregressive", "tokenizer, encode"):
        assert case in names
