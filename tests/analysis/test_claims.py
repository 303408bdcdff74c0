"""Verdicts: which way they go, what they need to be given, and that nothing else concludes."""

import json
import math
import re

import pandas as pd
import pytest

from analysis.exhibits.claims import (
    NOT_SHOWN,
    SHOWN,
    UNDECIDED,
    Claim,
    Verdict,
    barely_trained,
    versus,
)
from analysis.exhibits.results import read_results
from analysis.exhibits.statistics import Effect, holm
from analysis.report.build import contents, judged
from tests.analysis.synthetic import speed_rows, sweep_rows
from tests.params import make_params

UNCACHED = "MaskGIT decodes faster than autoregressively"
CROSSED = "cubic and cosine against linear and square root"
CACHED = f"{UNCACHED} even with a key-value cache"


@pytest.fixture
def verdicts(results, params):
    """Judges the results as they lie in their files, and returns the verdicts by what is said."""

    def by_claim(chosen=params, left_out=()) -> dict[str, Verdict]:
        found = judged(read_results(results), chosen, left_out)
        assert len({verdict.claim.said for verdict in found}) == len(found)
        return {verdict.claim.said: verdict for verdict in found}

    return by_claim


def claim(*effects: Effect, sign: int = 1) -> Claim:
    return Claim(
        said="the claim",
        source="",
        exhibit="",
        shown_in="",
        measure="",
        sign=sign,
        parts=[versus("A", "B", effect) for effect in effects],
    )


def test_a_claim_of_several_parts_is_as_weak_as_its_weakest():
    both = claim(Effect(2.0, p=0.001, n=3), Effect(1.0, p=0.04, n=3))
    assert both.p == pytest.approx(0.04) and both.weakest.effect.value == 1.0
    against = claim(Effect(2.0, p=0.001, n=3), Effect(-1.0, p=0.01, n=3))
    # The second alone contradicts it; it is the smaller of two.
    assert against.p == pytest.approx(2 * 0.01) and against.weakest.effect.value == -1.0
    assert claim(Effect(-1.0, p=0.01, n=3), sign=-1).p == pytest.approx(0.01)
    assert math.isnan(claim(Effect(2.0, p=0.001, n=3), Effect(1.0, n=1)).p)
    assert math.isnan(claim().p) and claim().weakest is None


def test_verdicts_are_those_that_the_results_were_made_for(verdicts):
    found = {said: verdict.word for said, verdict in verdicts().items()}
    expected = {
        "MaskGIT outperforms VQGAN∗ by FID (classifier)": SHOWN,
        "MaskGIT outperforms VQGAN∗ by IS (classifier)": SHOWN,
        "MaskGIT outperforms VQGAN∗ by recall (classifier)": NOT_SHOWN,
        "MaskGIT outperforms VQGAN∗ by precision (classifier)": NOT_SHOWN,
        "MaskGIT outperforms VQGAN∗ by CAS with RandAugment": UNDECIDED,
        "MaskGIT outperforms VQGAN∗ by CAS without RandAugment": UNDECIDED,
        "MaskGIT outperforms VQGAN∗ by FID (classifier) with label smoothing 0": NOT_SHOWN,
        "MaskGIT outperforms VQGAN∗ by IS (classifier) with label smoothing 0": SHOWN,
        "MaskGIT outperforms VQGAN∗ by recall (classifier) with label smoothing 0": NOT_SHOWN,
        "MaskGIT outperforms VQGAN∗ by precision (classifier) with label smoothing 0": NOT_SHOWN,
        "MaskGIT decodes faster than autoregressively": SHOWN,
        CACHED: SHOWN,
        "cosine is the best of the schedules": NOT_SHOWN,
        "concave schedules are better than linear": NOT_SHOWN,
        "linear is better than convex schedules": SHOWN,
        # FID is made to fall by 4 to T = 8 and rise by 8 after it, by the same for every seed.
        "quality peaks at a sweet spot of T and then worsens": UNDECIDED,
        "the schedules rank as in the paper by FID (classifier)": UNDECIDED,
        "the schedules rank as in the paper by IS (classifier)": UNDECIDED,
        "the schedules rank as in the paper by NLL": SHOWN,
        f"concave schedules help in training ({CROSSED})": SHOWN,
        f"concave schedules help in decoding ({CROSSED})": SHOWN,
        "rejection sampling improves IS (classifier)": SHOWN,
        "rejection sampling improves FID (classifier)": SHOWN,
        "rejection sampling lowers recall (classifier)": SHOWN,
        "inpainting beats copying the nearest pixel": SHOWN,
        "outpainting beats copying the nearest pixel": SHOWN,
        "reconstructions worsen sharply beyond 90% of the tokens hidden": SHOWN,
    }
    assert found == expected


def test_a_sentence_has_the_numbers_the_interval_both_p_and_n(verdicts):
    verdict = verdicts()["MaskGIT outperforms VQGAN∗ by FID (classifier)"]
    # Seeds add 0, 0.02, 0.04 and 0, 0.03, 0.06: variances 4e-4 and 9e-4, standard error 0.020817,
    # Welch's degrees of freedom 3.484, t at 97.5% 2.9459 (R: qt).
    assert (
        "FID (classifier): **MaskGIT** is better than VQGAN∗, as in the paper (3.520 against "
        "4.530, difference −1.010 (−1.071 to −0.949); p < 0.0001, corrected for 26 comparisons"
    ) in verdict.sentence
    assert verdict.sentence.endswith("n = 3 training seeds).")
    against = verdicts()["cosine is the best of the schedules"].sentence
    assert "**linear** is better than cosine, unlike in the paper (1.037 against 4.027" in against


def test_what_only_the_correction_leaves_open_is_not_said_to_be_alike():
    def sentence(p: float) -> str:
        return Verdict(claim(Effect(1.0, 0.1, 1.9, p, 3)), p, min(1, 20 * p), 20).sentence

    assert "undecided whether the claim: not decided after correction for the 20" in sentence(0.04)
    assert "do not differ by more" in sentence(0.06) and "after correction" not in sentence(0.06)


def test_equal_seeds_are_no_proof(verdicts):
    verdict = verdicts()["quality peaks at a sweet spot of T and then worsens"]
    assert math.isnan(verdict.p) and verdict.brief == "undecided (n = 3)"
    assert "no spread over n = 3 training seeds" in verdict.sentence


def test_a_single_seed_concludes_nothing(results, verdicts):
    for name in ("evaluation", "cas", "temperature", "editing", "rejection", "reconstruction"):
        path = results / name / "rows.csv"
        rows = pd.read_csv(path, keep_default_na=False, na_values=[""])
        rows[rows["seed"].isna() | (rows["seed"] == 0)].to_csv(path, index=False)
    for name in ("rows", "crossing"):
        path = results / f"sweep/{name}.csv"
        rows = pd.read_csv(path)
        rows[rows["seed"] == 0].to_csv(path, index=False)
    found = verdicts()
    speed = [found.pop(said) for said in (UNCACHED, CACHED)]
    assert all(verdict.word == SHOWN and verdict.comparisons == 2 for verdict in speed)
    assert {verdict.word for verdict in found.values()} == {UNDECIDED}
    sentences = [verdict.sentence for verdict in found.values()]
    assert all("tells nothing of others" in text or "by its luck" in text for text in sentences)
    assert sum("Spearman's ρ" in text and "not measured" not in text for text in sentences) == 3
    said = "undecided whether linear is better than convex schedules: n = 1: one training seed"
    assert any(said in text for text in sentences)


def test_released_weights_are_of_one_training_and_conclude_nothing(verdicts):
    found = verdicts(make_params(transformer={"pretrained": "file"}))
    assert [found.pop(said).word for said in (UNCACHED, CACHED)] == [SHOWN, SHOWN]
    assert {verdict.word for verdict in found.values()} == {UNDECIDED}
    text = found["MaskGIT outperforms VQGAN∗ by FID (classifier)"].sentence
    assert "the weights are of one training" in text


def test_too_few_timings_cannot_be_told_from_luck(results, verdicts):
    speed_rows().assign(repeats=2).to_csv(results / "speed_timings.csv", index=False)
    verdict = verdicts()[UNCACHED]
    # Two and two timings are apart in 2 of 6 ways to deal them.
    assert "n = 2 timings of each in one process have no p below 0.33" in verdict.sentence
    assert math.isnan(verdict.p) and verdict.word == UNDECIDED
    speed_rows().assign(repeats=1).to_csv(results / "speed_timings.csv", index=False)
    assert "one timing of each tells nothing of others" in verdicts()[UNCACHED].sentence
    speed_rows().assign(repeats=4).to_csv(results / "speed_timings.csv", index=False)
    assert verdicts()[UNCACHED].p == pytest.approx(2 / 70)


def test_how_long_something_took_changes_no_other_p(results, verdicts):
    """Each comparison's p repeats with its results, and is never less than Holm's of them all."""
    timed, repeats = (UNCACHED, CACHED), 5
    speed_rows().assign(repeats=repeats).to_csv(results / "speed_timings.csv", index=False)
    fast = verdicts()
    rows = speed_rows().assign(repeats=repeats, low=0.001, high=1.0)  # none can be told from others
    rows.to_csv(results / "speed_timings.csv", index=False)
    alike = verdicts()
    assert fast[UNCACHED].p < 0.03 and alike[UNCACHED].p == 1
    whole = dict(zip(fast, holm([verdict.p for verdict in fast.values()]), strict=True))
    others = [said for said in fast if not math.isnan(fast[said].p) and said not in timed]
    assert len(others) > 10
    for said in others:
        assert fast[said].adjusted == alike[said].adjusted >= whole[said]
    assert [fast[said].adjusted for said in timed] == [whole[said] for said in timed]


def test_the_paper_is_not_held_to_a_cache_that_it_does_not_name(results, verdicts):
    rows = speed_rows()
    slow = (rows["method"] == "ar_cached") & (rows["batch_size"] == 32)
    rows.loc[slow, ["seconds_per_image", "low", "high"]] /= 4
    rows.to_csv(results / "speed_timings.csv", index=False)
    found = verdicts()
    assert found[UNCACHED].word == SHOWN and found[UNCACHED].claim.source
    assert "without a cache: 0" in found[UNCACHED].numbers
    cached = found[CACHED]
    # At batch 1 MaskGIT is faster: a part fails, and not the whole.
    assert cached.word == NOT_SHOWN and not cached.claim.source
    assert cached.brief == "not shown here: its parts differ"
    assert "the parts of the claim differ: **VQGAN∗ with a cache** is faster" in cached.sentence
    assert "(batch 32, with a cache: 0.004" in cached.sentence
    assert cached.sentence.endswith("n = 8 timings of each in one process).")


def test_what_was_not_measured_is_said_and_not_tested(results, verdicts):
    sweep_rows({"linear": 1.0, "square": 2.0}).to_csv(results / "sweep/rows.csv", index=False)
    crossing = pd.read_csv(results / "sweep/crossing.csv").head(0)
    crossing.to_csv(results / "sweep/crossing.csv", index=False)
    found = verdicts()
    for said in ("cosine is the best of the schedules", "concave schedules help in training"):
        assert found[said].brief == "undecided (n = 0)" and found[said].numbers == "not measured"
        assert "was not measured here" in found[said].sentence


def test_nothing_but_a_claim_says_better(results, params):
    """Whatever the report says of its numbers, only a claim's sentence says who wins."""
    found = read_results(results)
    claimed = {verdict.sentence for verdict in judged(found, params)}
    others = [
        sentence
        for section in contents(found, params)[1]
        for exhibit in section.exhibits
        for sentence in (*exhibit.here, *getattr(exhibit, "notes", ()))
        if sentence not in claimed
    ]
    assert len(others) > 8
    judging = r"better|worse|beats?\b|wins?\b|faster|as in the paper|unlike|significan|confirm"
    assert [text for text in others if re.search(judging, text)] == []


def test_two_seeds_that_choose_for_each_other_are_not_tested(results, verdicts):
    sweep_rows(seeds=(0, 1)).to_csv(results / "sweep/rows.csv", index=False)
    verdict = verdicts()["linear is better than convex schedules"]
    assert verdict.brief == "undecided (n = 2)" and math.isnan(verdict.p)
    assert "each of two seeds has its T from the other" in verdict.sentence


def test_a_claim_names_the_schedules_that_were_swept_where_others_were_not(results, verdicts):
    offsets = {"cosine": 0.0, "linear": 1.0, "square_root": 3.0}
    sweep_rows(offsets).to_csv(results / "sweep/rows.csv", index=False)
    rows = pd.read_csv(results / "sweep/crossing.csv")
    few = rows[["schedule", "decoding_schedule"]].isin(["cosine", "linear"]).all(axis=1)
    rows[few].to_csv(results / "sweep/crossing.csv", index=False)
    found = verdicts()
    swept = "(of which cosine, linear and square root alone were swept)"
    best = found[f"cosine is the best of the schedules {swept}"]
    assert best.word == SHOWN
    assert "**cosine is better than linear and square root**, as in" in best.sentence
    concave = found["concave schedules (of which cosine alone was swept) are better than linear"]
    assert ": **cosine** is better than linear" in concave.sentence
    crossed = found["concave schedules help in training (cosine against linear)"]
    assert "**training with cosine** is better than training with linear" in crossed.sentence


# Networks of which nothing is known, or that have learned nothing


@pytest.mark.parametrize("out", ["figure5", "figure8"])
def test_results_that_are_out_of_date_do_not_tell_whether_networks_have_learned(
    results, verdicts, out
):
    """Neither chance nor recognised samples of before decide what stages have made after."""
    found = verdicts(left_out={out})
    unknown = "whether its networks have learned anything is out of date"
    gated = [said for said, verdict in found.items() if unknown in verdict.sentence]
    assert found[UNCACHED].word == SHOWN and "linear is better than convex schedules" in gated
    assert len(gated) > 20 if out == "figure5" else 0 < len(gated) < 12


def worsen(results, name: str, where: str, to: float) -> None:
    rows = pd.read_csv(results / name, keep_default_na=False, na_values=[""])
    rows.loc[rows.eval(where), "class_accuracy"] = to
    rows.to_csv(results / name, index=False)


@pytest.mark.parametrize(("share", "barely"), [(0.33, True), (0.37, True), (0.5, False)])
def test_networks_near_chance_are_called_barely_trained_and_decide_nothing(
    results, params, verdicts, share, barely
):
    """Three classes: guessing finds a third."""
    worsen(results, "evaluation/rows.csv", "images == 'transformer'", share)
    found = verdicts()
    quality = found["MaskGIT outperforms VQGAN∗ by FID (classifier)"]
    assert (quality.word == UNDECIDED) == barely == ("barely trained" in quality.sentence)
    assert found[UNCACHED].word == SHOWN
    assert found["linear is better than convex schedules"].word == SHOWN
    board = contents(read_results(results), params)[1][0].exhibits[0]
    assert ("Barely trained: MaskGIT." in board.here[0]) == barely


def test_a_sweep_near_chance_decides_nothing_of_schedules(results, verdicts):
    worsen(results, "sweep/rows.csv", "seed >= 0", 0.34)
    words = {said: verdict.word for said, verdict in verdicts().items()}
    assert words["linear is better than convex schedules"] == UNDECIDED
    assert words["MaskGIT outperforms VQGAN∗ by FID (classifier)"] == SHOWN


@pytest.mark.parametrize(("labels", "told"), [("training", True), ("uniform", False)])
def test_guessing_the_largest_class_is_no_training(results, labels, told):
    """It finds four of five samples where they have the classes' proportions."""
    path = results / "prepare/metrics.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"largest_class": 0.8}))
    worsen(results, "evaluation/rows.csv", "images == 'transformer'", 0.81)
    params = make_params(evaluation={"labels": labels})
    assert ("MaskGIT" in barely_trained(read_results(results), params)) == told
    path.write_text(json.dumps(data | {"classes": 1}))
    assert barely_trained(read_results(results), params) == {}
