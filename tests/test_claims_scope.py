"""What a claim covers: schedules that were swept, and networks of which something is known."""

from dataclasses import replace

import pandas as pd
import pytest

from analysis.exhibits.claims import SHOWN, Verdict, judge
from analysis.exhibits.inputs.results import Results, read_results
from tests.synthetic_results import curves_of
from tests.synthetic_tables import sweep_rows

FASTER = "MaskGIT decodes faster than autoregressively"


def verdicts(results: Results, params) -> dict[str, Verdict]:
    return {verdict.claim.said: verdict for verdict in judge(results, params)}


def test_a_claim_names_the_schedules_that_were_swept_where_others_were_not(results, params):
    offsets = {"cosine": 0.0, "linear": 1.0, "square_root": 3.0}
    sweep_rows(offsets).to_csv(results / "sweep/rows.csv", index=False)
    rows = pd.read_csv(results / "sweep/crossing.csv")
    few = ["cosine", "linear"]
    few = rows["schedule"].isin(few) & rows["decoding_schedule"].isin(few)
    rows[few].to_csv(results / "sweep/crossing.csv", index=False)
    found = verdicts(read_results(results, curves_of(results)), params)
    best = found[
        "cosine is the best of the schedules (of which cosine, linear and square root alone "
        "were swept)"
    ]
    assert best.word == SHOWN
    assert "**cosine is better than linear and square root**, as in" in best.sentence
    concave = found["concave schedules (of which cosine alone was swept) are better than linear"]
    assert ": **cosine** is better than linear" in concave.sentence
    convex = found["linear is better than convex schedules (of which square root alone was swept)"]
    assert ": **linear** is better than square root" in convex.sentence
    crossed = found["concave schedules help in training (cosine against linear)"]
    assert "**training with cosine** is better than training with linear" in crossed.sentence


@pytest.mark.parametrize("out", ["figure5", "figure8"])
def test_results_that_are_out_of_date_do_not_tell_whether_networks_have_learned(
    results, params, out
):
    """Neither chance nor recognised samples of before decide what stages have made after."""
    path = results / "evaluation/rows.csv"
    rows = pd.read_csv(path, keep_default_na=False, na_values=[""])
    told = []
    for share in (0.1, 0.9):
        rows.assign(class_accuracy=share).to_csv(path, index=False)
        current = replace(read_results(results, curves_of(results)), left_out=frozenset({out}))
        found = verdicts(current, params)
        assert found[FASTER].word == SHOWN
        told.append({said: verdict.sentence for said, verdict in found.items()})
    assert (told[0] == told[1]) is (out == "figure5")
    unknown = "whether its networks have learned anything is out of date"
    assert unknown in told[1]["linear is better than convex schedules"]
    gated = [said for said, sentence in told[1].items() if unknown in sentence]
    assert len(gated) > 20 if out == "figure5" else 0 < len(gated) < 12
