"""A metric that was added since: a line in `FEATURE_METRICS`, and the tables show it."""

import pandas as pd

from analysis.exhibits import table1, table3, table4
from analysis.exhibits.inputs.metrics import FEATURE_METRICS
from analysis.exhibits.inputs.results import read_results
from tests.synthetic_results import curves_of


def test_a_new_metric_is_in_every_table_of_metrics(results, params, monkeypatch):
    monkeypatch.setitem(FEATURE_METRICS, "new_thing", "new thing")
    name, label = "new_thing_classifier", "new thing (classifier)"
    for file in ("evaluation/rows.csv", "sweep/rows.csv", "rejection/rows.csv"):
        pd.read_csv(results / file).assign(**{name: 0.125}).to_csv(results / file, index=False)
    found = read_results(results, curves_of(results))
    for table in (table1.table(found, params), table4.table(found, params)):
        measured = table.readable[table.cells[f"{name}_mean"].notna()]
        (column,) = [heading for heading in table.readable if heading.startswith(label)]
        assert len(measured) > 1 and set(measured[column].str[:5]) == {"0.125"}
    headings = table3.grid(found, params).readable.columns
    assert any(heading.startswith(label) for heading in headings)
    notes = " ".join(table1.table(found, params).notes)
    assert "IS (classifier), KID and new thing are over features of" in notes


def test_one_of_the_main_extractor_is_in_table_1_where_neighbours_are_of_another(
    results, params, monkeypatch
):
    """As on ImageNet, whose precision and recall are VGG's."""
    monkeypatch.setitem(FEATURE_METRICS, "new_thing", "new thing")
    path = results / "evaluation/rows.csv"
    rows = pd.read_csv(path).assign(new_thing_classifier=0.125)
    rows.columns = [name.replace("random", "vgg") for name in rows.columns]
    rows.to_csv(path, index=False)
    metrics = results / "evaluation/metrics.json"
    metrics.write_text(metrics.read_text().replace("random", "vgg"))
    table = table1.table(read_results(results, curves_of(results)), params)
    assert "precision (vgg) ±" in table.readable
    assert "0.125" in table.readable["new thing (classifier) ±"].to_list()[0]
