"""The report, and the files beside it: whole, traceable, and of results that are up to date."""

import hashlib
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from analysis import __main__ as analysis
from analysis.exhibits.base import Table
from analysis.report.build import PLACES, build, contents, judged
from pipeline.runtime.errors import UserError
from pipeline.runtime.provenance import NO_RESULTS
from tests.analysis.synthetic import write_results, write_source

ROOT = Path(__file__).parents[2]
VOID = {"meta", "link", "img", "source", "br", "hr", "input"}
SWEPT = {"sweep": "ran with other params (sweep.steps: 300, now 20)"}


class Document(HTMLParser):
    """Checks that tags are nested, and collects them with their attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


# The page


def test_the_document_is_well_formed_complete_and_of_one_piece(report):
    text = report.read_text()
    document = Document(text)
    assert text.startswith("<!doctype html>") and len(text) < 6_000_000
    ids = [attributes["id"] for _, attributes in document.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for attributes in document.all("a")]
    assert links and {link.removeprefix("#") for link in links} <= set(ids)
    images = document.all("img")
    figures = {path.stem for path in (report.parent / "figures").glob("*.png")}
    assert len(images) == len(figures) + 2  # a few samples and Figure 8 open the page
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)
    assert all(len(image["alt"]) > 20 for image in images)
    assert not re.search(r"https?:|url\(|@import|<script src|<link rel=.stylesheet", text)
    assert "nan" not in re.sub(r'"data:[^"]*"', "", text)
    assert "two &lt;&amp;&gt;" in text and "two <&>" not in text  # the name of a class
    names = figures
    for folder in ("tables", "timings"):
        names |= {f"{path.stem}-table" for path in (report.parent / folder).glob("*.csv")}
    assert {attributes["id"] for attributes in document.all("article")} == names


def test_what_was_run_is_told(report):
    text = report.read_text()
    for fact in (
        "mnist5k: 4,000 training and 1,000 validation images of 3 classes, 28×28 grey",
        "2 CPUs, 16 GiB, 2 × H100",
        "3.0 hours in 2 stages",
        "abcdef012345 and abcdef012345 (changed)",
        "2025-01-02T03:04:05Z",
        "evaluate-run",
        "choice_temperature: 4.5",
    ):
        assert fact in text, fact
    assert "maskgit-experiment" not in text and "mlflow:" not in text


def test_every_claim_is_on_the_scoreboard_which_leads_to_its_exhibit(report, found, params):
    text = report.read_text()
    opening, first = text.split("</article>")[0].split("<article")
    assert first.startswith(' id="scoreboard-table"')
    papers, ours = opening.split("Our own claims")
    assert [papers.count("<li><a"), ours.count("<li><a")] == [10 + 4, 1]  # with the contents
    assert '"#table1-table">MaskGIT outperforms VQGAN∗ by FID (classifier)</a>: <b>shown' in papers
    counts = [int(n) for n in re.findall(r"<strong>shown here (\d+)", first)]
    assert first.count("<a href=") == first.count('<th scope="row">') > 20
    assert sum(counts) == first.count("<td>shown here<")
    for verdict in judged(found, params):
        article = text.split(f'<article id="{verdict.claim.exhibit}">')[1].split("</article>")[0]
        assert f"{verdict.claim.said}" in article


def test_the_papers_value_stands_under_ours_and_one_line_says_what_each_interval_is_over(report):
    text = re.sub(r"\s+", " ", report.read_text())
    table = text.split('<article id="table3-table">')[1].split("</article>")[0]
    assert '<p class="notes">± 95% interval over 3 training seeds</p>' in table
    heading = 'FID (classifier) of 100 samples ±<span class="paper">paper, Inception</span>'
    assert f'<th scope="col">{heading}</th>' in table
    assert "<td>4.027 ± " in table and '<span class="paper">6.06</span></td>' in table
    table = text.split('<article id="table1-table">')[1].split("</article>")[0]
    assert "CAS top-1 with RandAugment, ± 95% interval over 3 trainings" in table


# The files beside it


def test_every_table_has_a_sidecar_with_the_hashes_of_what_it_was_made_from(outputs):
    tables = [*(outputs / "tables").glob("*.csv"), *(outputs / "timings").glob("*.csv")]
    sources = {
        path.name.removesuffix(".sources.json"): json.loads(path.read_text())
        for path in (outputs / "sources").iterdir()
    }
    assert tables and set(sources) == {table.stem for table in tables}
    for source in sources.values():
        assert source["files"] and source["stages"]
        for name, digest in source["files"].items():
            content = (outputs.parent / "results" / name).read_bytes()
            assert digest == hashlib.sha256(content).hexdigest()
    assert set(sources["speed"]["files"]) == {"speed_timings.csv"}
    assert set(sources["speed"]["stages"]) == {"schedules", "prepare", "speed"}
    assert sources["table1"]["stages"]["evaluate"]["run_id"] == "evaluate-run"
    assert sources["table1"]["stages"]["cas"] is None  # it recorded nothing


def test_headline_has_the_means_over_seeds_and_the_best_cell(outputs):
    results = outputs.parent / "results"
    values = json.loads((results / "metrics.json").read_text())
    assert list(values) == ["MaskGIT", "VQGAN", "editing", "sweep", "tokenizer"]
    rows = pd.read_csv(results / "evaluation/rows.csv")
    cas = pd.read_csv(results / "cas/rows.csv").query("augmentation == 'none'")
    for name, network in (("MaskGIT", "transformer"), ("VQGAN", "autoregressive")):
        mine = rows[(rows["images"] == network) & (rows["label_smoothing"] == 0.1)]
        for metric in ("fid_classifier", "is_classifier", "class_accuracy"):
            assert values[name][metric] == pytest.approx(mine[metric].mean())
        assert values[name]["cas"] == pytest.approx(cas[cas["images"] == network]["top1"].mean())
    cells = pd.read_csv(results / "sweep/rows.csv").groupby(["schedule", "iterations"])
    means = cells["fid_classifier"].mean()
    assert values["sweep"]["best"] == "{} T={}".format(*means.idxmin())
    assert values["sweep"]["fid_classifier"] == pytest.approx(means.min())


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_same_results_give_the_same_bytes_whatever_the_order_of_the_rows(results, params, tmp_path):
    first = build(results, tmp_path / "first", params)
    for path in results.rglob("*.csv"):
        rows = pd.read_csv(path, keep_default_na=False)
        rows.sample(frac=1, random_state=3).to_csv(path, index=False)
    second = build(results, tmp_path / "second", params)
    for path, again in zip(first, second, strict=True):
        # The hashes in the sidecars are of the files themselves, which differ now.
        assert path.parent.name == "sources" or path.read_bytes() == again.read_bytes(), path
    written = {path for path in (tmp_path / "first").rglob("*") if path.is_file()}
    assert written | {results / "metrics.json"} == set(first)


@pytest.mark.usefixtures("undrawn")
def test_a_failure_leaves_the_old_report_whole(results, params, tmp_path, monkeypatch):
    out = tmp_path / "out"
    for name in ("tables/table1.csv", "figures/old.png", "report.html"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("old")
    before = sorted(out.rglob("*"))
    monkeypatch.setattr("analysis.report.build.write_report", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build(results, out, params)
    stages = ("evaluate", "cas", "sweep", "temperature", "edit", "reject", "reconstruct", "speed")
    with pytest.raises(UserError, match="dvc repro"):
        build(results, out, params, dict.fromkeys(stages, NO_RESULTS))
    (results / "reconstruction/pictures.npz").unlink()
    with pytest.raises(UserError) as error:
        build(results, out, params)
    assert error.value.subject.endswith("pictures.npz")
    assert sorted(out.rglob("*")) == before and not (results / "metrics.json").exists()
    assert all(path.read_text() == "old" for path in before if path.is_file())


# What is out of date


@pytest.mark.usefixtures("undrawn")
def test_what_is_out_of_date_is_left_out_under_a_banner(results, params, report, tmp_path):
    write_source(results, "sweep")
    (tmp_path / "out/tables").mkdir(parents=True)
    (tmp_path / "out/tables/table3.csv").touch()  # of an earlier analysis
    build(results, tmp_path / "out", params, SWEPT)
    text = (tmp_path / "out/report.html").read_text()
    before, after = (
        set(re.findall(r'<article id="([^"]+)"', page)) for page in (report.read_text(), text)
    )
    assert before - after == {
        *("table3-table", "figure8", "schedules", "rank_correlation-table"),
        *("crossing-table", "sweep-table"),
    }
    head = text.split("</header>")[0]
    assert "sweep ran with other params (sweep.steps: 300, now 20)" in head
    assert "Left out, as out of date: Table 3, Figure 8, right" in text
    assert "sweep-run" not in text  # the runs behind what is shown
    left = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert not {name for name in left if name.startswith(("table3", "figure8", "sweep"))}
    assert {"table1.csv", "table1.sources.json", "figure5.png"} <= left
    assert "sweep" not in json.loads((results / "metrics.json").read_text())


def test_leaving_out_claims_decides_no_other(found, params):
    """Else a part of the results could show what all of them do not."""
    before = {verdict.claim.said: verdict for verdict in judged(found, params)}
    after = judged(found, params, {"table3-table", "figure8"})
    assert len(before) > len(after) > 10
    for verdict in after:
        whole = before[verdict.claim.said].adjusted
        assert verdict.claim.exhibit not in ("table3-table", "figure8")
        assert math.isnan(verdict.adjusted) or verdict.adjusted >= whole - 1e-12


def test_exhibits_stand_where_they_are_named(found, params):
    places = [place for section in PLACES.values() for place in section]
    shown = [e for s in contents(found, params)[1][1:] for e in s.exhibits]
    assert [e.name + "-table" * isinstance(e, Table) for e in shown] == [p.anchor for p in places]


# The command


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A project with synthetic results."""
    monkeypatch.chdir(tmp_path)
    for name in ("dvc.yaml", "params.yaml"):
        Path(name).write_bytes((ROOT / name).read_bytes())
    write_results(Path("results"))
    for name in ("analysis/exhibits", "analysis/report"):
        Path(name).mkdir(parents=True)
        Path(name, "a.py").write_text("lr = 1")
    return tmp_path


@pytest.mark.slow
def test_command_needs_no_cluster_no_server_and_no_network_of_its_own(here):
    program = (
        "import sys; from analysis.__main__ import main; code = main(); "
        "print([m for m in ('ray', 'mlflow', 'dvc', 'torchvision') if m in sys.modules]); "
        "sys.exit(code)"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess:
        env = {"PYTHONPATH": str(ROOT), "HOME": str(here), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-P", *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    done = run("-c", program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("[]\n") and "analysis/report.html" in done.stdout
    Path("results/sweep/rows.csv").unlink()
    failed = run("-m", "analysis")
    assert failed.returncode == 1
    assert failed.stderr == "error: results/sweep/rows.csv is missing; run `dvc repro` to make it\n"


@pytest.mark.parametrize("changed", ["analysis/report/a.py", "results/cas/rows.csv", "params.yaml"])
def test_code_results_and_params_that_change_meanwhile_fail_it(here, monkeypatch, capsys, changed):
    def meanwhile(*_) -> list[Path]:
        text = Path(changed).read_text()
        Path(changed).write_text(re.sub(r"(?m)^seed: \d+|^lr.*", "seed: 9", text) + "\n")
        return [Path("report.html")]

    monkeypatch.setattr(analysis, "build", meanwhile)
    assert analysis.main() == 1
    subject = {"params.yaml": "seed", "analysis/report/a.py": "analysis/report"}
    assert capsys.readouterr().err.startswith(f"error: {subject.get(changed, changed)}: ")
