"""Verdicts on claims: when a claim is shown, not shown or undecided."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.exhibits import claims
from analysis.exhibits.claims import CERTAIN, NOT_SHOWN, SHOWN, UNDECIDED, Claim, Part, Verdict
from analysis.exhibits.results import Results
from analysis.exhibits.statistics import Effect, holm, paired
from analysis.report.build import judged
from tests.analysis import synthetic
from tests.analysis.synthetic import speed_rows, sweep_rows
from tests.params import make_params

OUTPERFORMS = "MaskGIT outperforms VQGAN∗ in"
QUALITY = f"{OUTPERFORMS} FID (classifier)"
BOTH = f"{OUTPERFORMS} FID (classifier and random)"
UNCACHED = "MaskGIT decodes faster than the autoregressive baseline"
CACHED = f"{UNCACHED} with a key-value cache"
CROSSED = "cubic and cosine against linear and square root"
SELECTED = "rejection sampling improves IS (classifier)"
ORDER = "the order of the schedules correlates with the paper's by"
LINEAR = "linear is better than convex schedules"


@pytest.fixture
def verdicts(found, params):
    """A function that replaces fields of the results, and returns the verdicts by claim text."""

    def by_claim(chosen=params, left_out=(), **fields) -> dict[str, Verdict]:
        judgements = judged(replace(found, **fields), chosen, left_out)
        assert len({verdict.claim.said for verdict in judgements}) == len(judgements)
        return {verdict.claim.said: verdict for verdict in judgements}

    return by_claim


def claim(*effects: Effect, sign: int = 1) -> Claim:
    names = dict.fromkeys(("source", "exhibit", "shown_in", "measure"), "")
    return Claim(said="the claim", sign=sign, parts=list(map(Part, effects)), **names)


def test_a_claim_of_several_parts_is_as_weak_as_its_weakest():
    both = claim(Effect(2.0, p=0.001, n=3), Effect(1.0, p=0.04, n=3))
    assert both.p == pytest.approx(0.04) and both.weakest.effect.value == 1.0
    against = claim(Effect(2.0, p=0.001, n=3), Effect(-1.0, p=0.01, n=3))
    # Only the second part contradicts the claim; Bonferroni's factor for two parts is 2.
    assert against.p == pytest.approx(2 * 0.01) and against.weakest.effect.value == -1.0
    assert claim(Effect(-1.0, p=0.01, n=3), sign=-1).p == pytest.approx(0.01)
    assert math.isnan(claim(Effect(2.0, p=0.001, n=3), Effect(1.0, n=1)).p)
    assert math.isnan(claim().p) and claim().weakest is None


def test_longer_training_is_a_claim_if_the_steps_vary(verdicts, found, params):
    said = "cosine overtakes exponential in longer training"
    assert said not in verdicts()
    first, change, last = verdicts(designs=synthetic.longer_rows())[said].claim.parts
    assert (change.effect.value, change.effect.n) == (pytest.approx(0.11), 3)
    assert change.effect.p == pytest.approx(paired([0.1, 0.11, 0.12], [0, 0, 0]).p)
    best = sweep_rows().query("iterations == 8").pivot(index="seed", columns="schedule")
    logs = np.log(best["fid_classifier"])
    gap = (logs["exponential"] - logs["cosine"]).mean()
    assert (first.effect.value, last.effect.value) == pytest.approx((-gap, gap + 0.22))
    # T = 8, the best T, is not used if the models of 1,000 steps lack it.
    fewer = synthetic.longer_rows().query("iterations == 4 or (iterations == 8 and steps == 500)")
    assert verdicts(designs=fewer)[said].claim.parts[1].effect.value == pytest.approx(0.11)


def without_oracle(verdicts: dict[str, Verdict]) -> dict[str, Verdict]:
    return {said: each for said, each in verdicts.items() if each.claim.exhibit != "oracle"}


def test_verdicts_about_decoding_alone_need_no_network(verdicts, params):
    found = verdicts(make_params(transformer={"pretrained": "file"}, oracle={"grids": [8]}))
    alone = [each for each in found.values() if each.claim.exhibit == "oracle"]
    # With 10 groups of samples, the smallest possible p of an exact test is 2/2^10.
    assert [each.word for each in alone] == [SHOWN] * 5
    assert [each.p for each in alone] == [pytest.approx(2 / 2**10)] * 5
    best = alone[0].sentence
    assert "N = 64, cosine at the best T and cosine at T = 1: 0.0503 against 0.150" in best


def test_verdicts_are_those_that_the_results_were_made_for(verdicts):
    found = verdicts()
    assert {said: verdict.word for said, verdict in without_oracle(found).items()} == {
        QUALITY: SHOWN,
        f"{OUTPERFORMS} IS (classifier)": SHOWN,
        f"{OUTPERFORMS} recall (classifier)": NOT_SHOWN,
        f"{OUTPERFORMS} precision (classifier)": NOT_SHOWN,
        f"{OUTPERFORMS} CAS with RandAugment": SHOWN,
        f"{OUTPERFORMS} CAS without RandAugment": SHOWN,
        f"{QUALITY} with label smoothing 0": NOT_SHOWN,
        f"{OUTPERFORMS} IS (classifier) with label smoothing 0": SHOWN,
        f"{OUTPERFORMS} recall (classifier) with label smoothing 0": NOT_SHOWN,
        f"{OUTPERFORMS} precision (classifier) with label smoothing 0": NOT_SHOWN,
        UNCACHED: SHOWN,
        CACHED: SHOWN,
        "cosine is the best of the schedules": NOT_SHOWN,
        "cosine is better than linear and convex schedules": NOT_SHOWN,
        "concave schedules are better than linear": NOT_SHOWN,
        LINEAR: SHOWN,
        # The FID of the synthetic results falls by 4 up to T = 8, and then rises by 8.
        "quality peaks at a sweet spot of T and then worsens": SHOWN,
        "the best T is larger for less concave schedules": UNDECIDED,
        "diversity falls as T grows": UNDECIDED,
        f"{ORDER} FID (classifier)": SHOWN,
        f"{ORDER} IS (classifier)": SHOWN,
        f"{ORDER} NLL": SHOWN,
        f"concave schedules help in training ({CROSSED})": SHOWN,
        f"concave schedules help in decoding ({CROSSED})": SHOWN,
        SELECTED: CERTAIN,
        "rejection sampling improves FID (classifier)": SHOWN,
        "rejection sampling lowers recall (classifier)": SHOWN,
        "inpainting beats copying the nearest pixel": SHOWN,
        "outpainting beats copying the nearest pixel": SHOWN,
        "reconstructions worsen sharply beyond 90% of the tokens hidden": SHOWN,
    }
    # Seeds add 0, 0.02, 0.04 and 0, 0.03, 0.06, so the variances are 4e-4 and 9e-4. The standard
    # error is 0.020817. With Welch's 3.484 degrees of freedom, t at 97.5% is 2.9459 (R: qt).
    assert found[QUALITY].sentence.startswith(
        f"{QUALITY}: **shown here** (3.520 against 4.530, difference −1.010 (−1.071 to −0.949); "
        "p < 0.0001, corrected for 5 comparisons "
    )
    assert found[QUALITY].sentence.endswith("; n = 3 training seeds; power 100%).")
    best = found["cosine is the best of the schedules"].sentence
    # The values are geometric means over seeds: ∛(4 · 4.05 · 4.03) and ∛(2 · 2.04 · 2.01).
    assert "cosine and square: 4.027 against 2.017, ratio 1.997" in best
    equal = found["diversity falls as T grows"]
    assert math.isnan(equal.p) and "no spread over n = 3" in equal.sentence


def test_a_single_seed_concludes_nothing(found, verdicts):
    names = "rows cas temperature editing rejection reconstruction sweep crossing"
    tables = {name: getattr(found, name) for name in names.split()}
    alone = {name: rows[rows["seed"].isna() | (rows["seed"] == 0)] for name, rows in tables.items()}
    words = without_oracle(verdicts(**alone))
    speed = [words.pop(said) for said in (UNCACHED, CACHED)]
    assert all(verdict.word == SHOWN and verdict.comparisons == 1 for verdict in speed)
    assert words.pop(SELECTED).word == CERTAIN
    assert {verdict.word for verdict in words.values()} == {UNDECIDED}
    sentences = [verdict.sentence for verdict in words.values()]
    assert all("tells nothing about" in text for text in sentences)
    assert sum("Spearman's ρ" in text for text in sentences) == 3
    two = verdicts(sweep=sweep_rows(seeds=(0, 1)))[LINEAR]
    assert two.word == UNDECIDED and "each of two seeds chooses T for the other" in two.sentence


@pytest.mark.parametrize(
    ("second", "word"), [(-1.0, SHOWN), (0.0, UNDECIDED), (1.0, NOT_SHOWN)], ids=str
)
def test_a_better_fid_is_shown_only_where_two_extractors_agree(found, verdicts, second, word):
    ours = (found.rows["images"] == "transformer") * second
    noise = found.rows["fid_classifier"] % 0.1 * (1 + ours)  # the seeds' jitter
    verdict = verdicts(rows=found.rows.assign(fid_random=5 + ours + noise))[BOTH]
    assert verdict.word == word and verdict.mixed == (word == NOT_SHOWN)
    assert [part.sides for part in verdict.claim.parts] == ["FID (classifier)", "FID (random)"]


def test_released_weights_are_of_one_training_and_conclude_nothing(verdicts):
    found = without_oracle(verdicts(make_params(transformer={"pretrained": "file"})))
    assert [found.pop(said).word for said in (UNCACHED, CACHED)] == [SHOWN, SHOWN]
    assert found.pop(SELECTED).word == CERTAIN
    assert {verdict.word for verdict in found.values()} == {UNDECIDED}
    assert "the weights are of one training run" in found[QUALITY].sentence


def test_how_long_something_took_changes_no_other_p(verdicts):
    timed, rows = (UNCACHED, CACHED), speed_rows().assign(repeats=5)
    fast = verdicts(speed=rows)
    alike = verdicts(speed=rows.assign(low=0.001, high=1.0))  # all ranges overlap
    assert fast[UNCACHED].p < 0.03 and alike[UNCACHED].p == 1
    others = [said for said in fast if not math.isnan(fast[said].p) and said not in timed]
    assert len(others) > 10
    assert all(fast[said].adjusted == alike[said].adjusted for said in others)


def test_the_papers_claims_of_a_section_are_corrected_together_and_ours_by_exhibit(verdicts):
    families = [
        [f"{OUTPERFORMS} {kind} (classifier)" for kind in ("FID", "IS", "recall", "precision")],
        [f"{OUTPERFORMS} CAS without RandAugment", "rejection sampling improves FID (classifier)"],
        [
            "inpainting beats copying the nearest pixel",
            "outpainting beats copying the nearest pixel",
        ],
        [UNCACHED],
        ["rejection sampling lowers recall (classifier)"],
    ]
    families[0].append(f"{OUTPERFORMS} CAS with RandAugment")
    found = verdicts()
    for family in families:
        each = [found[said] for said in family]
        assert [verdict.adjusted for verdict in each] == holm([verdict.p for verdict in each])
        assert {verdict.comparisons for verdict in each} == {len(family)}
    # A claim that holds by construction is not counted, although its p would be small.
    assert math.isnan(found[SELECTED].p) and "the same classifier" in found[SELECTED].sentence


def test_the_paper_is_not_held_to_a_cache_that_it_does_not_name(verdicts):
    rows = speed_rows()
    slow = (rows["method"] == "ar_cached") & (rows["batch_size"] == 32)
    rows.loc[slow, ["seconds_per_image", "low", "high"]] /= 4
    found = verdicts(speed=rows)
    assert found[UNCACHED].word == SHOWN and found[UNCACHED].claim.source
    # MaskGIT is still faster at batch size 1, so only one part of the claim fails.
    assert found[CACHED].word == NOT_SHOWN and not found[CACHED].claim.source
    assert "**not shown here: its parts differ**" in found[CACHED].sentence


def test_what_was_not_measured_is_said_and_not_tested(found, verdicts):
    sweep = sweep_rows({"linear": 1.0, "square": 2.0})
    words = verdicts(sweep=sweep, crossing=found.crossing.head(0))
    for said in ("cosine is the best of the schedules", "concave schedules help in training"):
        assert words[said].word == UNDECIDED and "not measured; n = 0" in words[said].sentence
    sweep = sweep_rows({"cosine": 0.5, "linear": 1.0, "square_root": 3.0})
    words = verdicts(sweep=sweep)  # the claim's text names the swept schedules
    swept = "(of the paper's, only cosine, linear and square root were swept)"
    assert words[f"cosine is the best of the schedules {swept}"].word == SHOWN
    assert (
        "concave schedules (of the paper's, only cosine was swept) are better than linear" in words
    )


@pytest.mark.parametrize("out", ["figure5", "figure8"])
def test_results_that_are_out_of_date_do_not_tell_whether_networks_have_learned(verdicts, out):
    """A claim is not tested if the accuracies of its networks' samples are out of date."""
    found = verdicts(left_out={out})
    unknown = "whether its networks have learned anything are out of date"
    gated = [said for said, verdict in found.items() if unknown in verdict.sentence]
    assert found[UNCACHED].word == SHOWN and LINEAR in gated
    assert len(gated) > 20 if out == "figure5" else 0 < len(gated) < 12


def recognised(found, share: float):
    """Return the evaluation's rows with `share` as the class accuracy of MaskGIT's samples."""
    ours = found.rows["images"] == "transformer"
    return found.rows.assign(class_accuracy=found.rows["class_accuracy"].where(~ours, share))


@pytest.mark.parametrize(("share", "barely"), [(0.33, True), (0.37, True), (0.5, False)])
def test_networks_near_chance_are_called_barely_trained_and_decide_nothing(
    found, params, verdicts, share, barely
):
    """Chance is one third, since the data set has three classes."""
    rows = recognised(found, share)
    words = verdicts(rows=rows)
    quality = words[QUALITY]
    assert (quality.word == UNDECIDED) == barely == ("barely trained" in quality.sentence)
    assert words[UNCACHED].word == words[LINEAR].word == SHOWN
    said = claims.warnings(replace(found, rows=rows), params, ())
    assert ["Barely trained: MaskGIT." in text for text in said] == [True] * barely
    sweep = verdicts(sweep=found.sweep.assign(class_accuracy=share))
    assert (sweep[LINEAR].word == UNDECIDED) == barely and sweep[QUALITY].word == SHOWN


@pytest.mark.parametrize(("labels", "told"), [("training", True), ("uniform", False)])
def test_guessing_the_largest_class_is_no_training(found, labels, told):
    """If labels follow the training set's proportions, always guessing that class is 80% right."""
    data = found.data | {"largest_class": 0.8}
    results = replace(found, rows=recognised(found, 0.81), data=data)
    params = make_params(evaluation={"labels": labels})
    assert ("MaskGIT" in claims.barely_trained(results, params)) == told
    assert claims.barely_trained(replace(results, data=data | {"classes": 1}), params) == {}


# Results of pure noise: no schedule, network, selection or edit is better than another

MEASURED = ("fid", "is", "nll", "precision", "recall", "top1", "pair", "log")
REPORTS = 200
SHARED = 0.5  # standard deviation of a seed's effect on all of its rows


def noise(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Replace the measured columns by noise around 5, with one term per seed and one per row. Rows
    without a seed, such as the floor, get exactly 5."""
    known = rows["seed"].notna().to_numpy()
    places = rows["seed"].fillna(0).astype(int).to_numpy()
    changed = {}
    for name in rows:
        if name.split("_")[0] in MEASURED and not name.endswith("_std"):
            shared = SHARED * rng.standard_normal(places.max() + 1)[places]
            values = 5 + known * (shared + rng.standard_normal(len(rows)))
            changed[name] = np.where(rows[name].isna(), np.nan, values)
    return rows.assign(**changed)


def drawn(results: Results, made: dict[str, pd.DataFrame], rng: np.random.Generator) -> Results:
    tables = {name: noise(rows, rng) for name, rows in made.items()}
    rows = tables["reconstruction"]
    # PSNR falls by the same amount for each masked token.
    rows["psnr"] = 20 - 10 * rows["mask_ratio"] + 0.1 * rng.standard_normal(len(rows))
    speed = synthetic.speed_rows()
    times = 1 + 0.1 * rng.standard_normal((len(speed), int(speed["repeats"].iloc[0])))
    tables["oracle"] = tables["oracle"].drop(columns="seed")
    tables["speed"] = speed.assign(
        low=times.min(axis=1), high=times.max(axis=1), seconds_per_image=np.median(times, axis=1)
    )
    return replace(results, **tables)


@pytest.mark.soak
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_of_reports_of_noise_one_in_twenty_at_most_decides_anything_in_a_family(
    found, params, seeds, monkeypatch
):
    monkeypatch.setattr(synthetic, "SEEDS", range(seeds))
    oracle = synthetic.oracle_rows()
    made = {
        "rows": synthetic.evaluation_rows(),
        "cas": synthetic.cas_rows(),
        "crossing": synthetic.crossing_rows(),
        "designs": synthetic.longer_rows(range(seeds)),
        "oracle": oracle.assign(seed=pd.to_numeric(oracle["group"], errors="coerce")),
        "editing": synthetic.editing_rows(),
        "rejection": synthetic.rejection_rows(),
        "sweep": synthetic.sweep_rows(seeds=range(seeds)),
        "reconstruction": synthetic.reconstruction_rows(),
    }
    rng = np.random.default_rng(seeds)
    decided = Counter[tuple[str, bool]]()
    for _ in range(REPORTS):
        verdicts = judged(drawn(found, made, rng), params)
        # All claims are tested, except those that need more seeds or hold by construction.
        untested = [each.claim for each in verdicts if math.isnan(each.p)]
        assert all(claim.fewest > seeds or claim.certain for claim in untested)
        assert all("undecided" in v.sentence for v in verdicts if v.word == UNDECIDED)
        decided.update({v.claim.family for v in verdicts if v.word in (SHOWN, NOT_SHOWN)})
    error = math.sqrt(0.05 * 0.95 / REPORTS)
    assert len(decided) > 3 and max(decided.values()) / REPORTS <= 0.05 + 2 * error
