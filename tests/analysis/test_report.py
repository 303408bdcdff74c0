"""The report and the files beside it are complete, traceable and made from current results."""

import hashlib
import html
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis import __main__ as analysis
from analysis.report.build import PLACES, build, judged
from pipeline.runtime.errors import UserError
from pipeline.runtime.provenance import NO_RESULTS
from tests.analysis.synthetic import write_results, write_source
from tests.errors import refused

ROOT = Path(__file__).parents[2]
SWEPT = {"sweep": "ran with other params (sweep.steps: 300, now 20)"}


def test_the_document_is_whole_and_of_one_piece(report):
    text = report.read_text()
    assert text.startswith("<!doctype html>") and text.endswith("</html>\n")
    assert len(text) < 6_000_000
    for tag in ("article", "section", "table", "details", "div", "ul", "figure", "picture"):
        assert len(re.findall(rf"<{tag}[ >]", text)) == text.count(f"</{tag}>"), tag
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids)) and set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)
    images = re.findall(
        r'<img src="data:image/png;base64,[^"]*" width="\d+" height="\d+" alt=".{20}', text
    )
    figures = {path.stem for path in (report.parent / "figures").glob("*.png")}
    # The page's opening adds two pictures: a few samples, and Figure 8 again.
    assert len(images) == text.count("<img") == len(figures) + 2
    assert not re.search(r"https?:|url\(|@import|<script|<link rel=.stylesheet", text)
    assert "nan" not in re.sub(r'"data:[^"]*"', "", text)
    assert "two &lt;&amp;&gt;" in text and "two <&>" not in text  # a class name
    csv = [path for name in ("tables", "timings") for path in (report.parent / name).glob("*.csv")]
    articles = re.findall(r'<article id="([^"]+)"', text)
    assert set(articles) == figures | {f"{path.stem}-table" for path in csv}
    order = [place.anchor for section in PLACES.values() for place in section]
    assert articles == ["scoreboard-table", *order]


def test_what_was_run_is_told_and_the_papers_values_stand_under_ours(report):
    text = re.sub(r"\s+", " ", report.read_text())
    for fact in (
        "mnist5k: 4,000 training and 1,000 validation images of 3 classes, 28×28 grey",
        "2 CPUs, 16 GiB, 2 × H100",
        "<dt>Precision on CPUs</dt> <dd>products in float32</dd>",
        "3.0 hours in 2 stages",
        "abcdef012345 and abcdef012345 (changed)",
        'FID (classifier) of 100 samples ±<span class="paper">paper, Inception</span>',
        '<span class="paper">6.06</span></td>',
    ):
        assert fact in text, fact


def test_every_claim_is_on_the_scoreboard_which_leads_to_its_exhibit(report, found, params):
    text = report.read_text()
    opening, first = text.split("</article>")[0].split("<article")
    assert first.startswith(' id="scoreboard-table"')
    papers, ours = opening.split("Our own claims")
    assert [papers.count("<li><a"), ours.count("<li><a")] == [12 + 4, 1]  # 12 in the contents
    assert '"#table1-table">MaskGIT outperforms VQGAN∗ in FID (classifier)</a>: <b>shown' in papers
    counts = [int(n) for n in re.findall(r"<strong>shown here (\d+)", first)]
    assert first.count("<a href=") == first.count('<th scope="row">') > 20
    assert sum(counts) == first.count("<td>shown here<")
    for verdict in judged(found, params):
        article = text.split(f'<article id="{verdict.claim.exhibit}">')[1].split("</article>")[0]
        assert verdict.claim.said in html.unescape(article)


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
    assert sources["table1"]["stages"]["cas"] is None  # the stage has no record


def test_headline_has_the_means_over_seeds_and_the_best_cell(outputs):
    values = json.loads((outputs.parent / "results/metrics.json").read_text())
    named = ("fid_classifier", "is_classifier", "class_accuracy", "cas")
    assert values == {
        "MaskGIT": pytest.approx(dict(zip(named, (3.52, 9.02, 0.95, 0.5), strict=True))),
        "VQGAN": pytest.approx(dict(zip(named, (4.53, 8.03, 0.9, 0.2), strict=True))),
        "editing": {"inpainted_class_accuracy": pytest.approx(0.8)},
        "sweep": {"best": "linear T=8", "fid_classifier": pytest.approx(1 + 0.11 / 3)},
        "tokenizer": {"psnr": 18.75},
    }


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_same_results_give_the_same_bytes_whatever_the_order_of_the_rows(results, params, tmp_path):
    first = build(results, tmp_path / "first", params)
    for path in results.rglob("*.csv"):
        rows = pd.read_csv(path, keep_default_na=False)
        rows.sample(frac=1, random_state=3).to_csv(path, index=False)
    second = build(results, tmp_path / "second", params)
    for path, again in zip(first, second, strict=True):
        # The sidecars have hashes of the result files, which now have another order of rows.
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
    stages = (
        "evaluate",
        "cas",
        "sweep",
        "oracle",
        "temperature",
        "edit",
        "reject",
        "reconstruct",
        "speed",
    )
    with pytest.raises(UserError, match="dvc repro"):
        build(results, out, params, dict.fromkeys(stages, NO_RESULTS))
    (results / "reconstruction/pictures.npz").unlink()
    with refused(results / "reconstruction/pictures.npz"):
        build(results, out, params)
    assert sorted(out.rglob("*")) == before and not (results / "metrics.json").exists()
    assert all(path.read_text() == "old" for path in before if path.is_file())


@pytest.mark.usefixtures("undrawn")
def test_what_is_out_of_date_is_left_out_under_a_banner(results, params, report, tmp_path):
    write_source(results, "sweep")
    (tmp_path / "out/tables").mkdir(parents=True)
    (tmp_path / "out/tables/table3.csv").touch()  # from an earlier analysis
    build(results, tmp_path / "out", params, SWEPT)
    text = (tmp_path / "out/report.html").read_text()
    before, after = (
        set(re.findall(r'<article id="([^"]+)"', page)) for page in (report.read_text(), text)
    )
    assert before - after == {
        *("table3-table", "figure8", "schedules"),
        *("crossing-table", "sweep-table", "designs", "designs-table"),
    }
    head = text.split("</header>")[0]
    assert "sweep ran with other params (sweep.steps: 300, now 20)" in head
    assert "because their results are out of date: Table 3; Figure 8, right" in text
    assert "sweep-run" not in text  # only runs of shown results are listed
    left = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert not {name for name in left if name.startswith(("table3", "figure8", "sweep"))}
    assert {"table1.csv", "table1.sources.json", "figure5.png"} <= left
    assert "sweep" not in json.loads((results / "metrics.json").read_text())


def test_leaving_out_claims_decides_no_other(found, params):
    """Otherwise, fewer results could decide a claim that all results together do not decide."""
    before = {verdict.claim.said: verdict for verdict in judged(found, params)}
    after = judged(found, params, {"table3-table", "figure8"})
    assert len(before) > len(after) > 10
    for verdict in after:
        whole = before[verdict.claim.said].adjusted
        assert verdict.claim.exhibit not in ("table3-table", "figure8")
        assert math.isnan(verdict.adjusted) or verdict.adjusted >= whole - 1e-12


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A project with synthetic results, as the working directory."""
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
        "import sys; from analysis.__main__ import main; main(); "
        "print([m for m in ('ray', 'mlflow', 'dvc', 'torchvision') if m in sys.modules])"
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
def test_code_results_and_params_that_change_meanwhile_fail_it(here, monkeypatch, changed):
    def meanwhile(*_) -> list[Path]:
        text = Path(changed).read_text()
        Path(changed).write_text(re.sub(r"(?m)^seed: \d+|^lr.*", "seed: 9", text) + "\n")
        return [Path("report.html")]

    monkeypatch.setattr(analysis, "build", meanwhile)
    subject = {"params.yaml": "seed", "analysis/report/a.py": "analysis/report"}
    with pytest.raises(SystemExit, match=f"^error: {subject.get(changed, changed)}: "):
        analysis.main()


@pytest.fixture
def page(browser, report, width):
    """The report in a browser. Console messages and failed or external requests fail the test."""
    window, complaints = browser.new_page(viewport={"width": width, "height": 800}), []
    window.on("console", lambda message: complaints.append(message.text))
    window.on("requestfailed", lambda request: complaints.append(request.url[:80]))
    window.route("http*://**", lambda route: complaints.append(route.request.url))
    window.goto(report.as_uri())
    yield window
    window.close()
    assert complaints == []


LETTERS = """() => [...document.querySelectorAll("body *:not(script, style)")]
  .filter((e) => e.checkVisibility() && [...e.childNodes].some((n) => n.nodeType === 3))
  .map((e) => [parseFloat(getComputedStyle(e).fontSize), e.outerHTML])
  .sort((a, b) => a[0] - b[0])[0]"""
# The scale of each displayed picture. At scale 1, letters (8.3 to 9 points) are legible.
SHRUNK = """() => [...document.images].map((image) => {
  const drawn = image.currentSrc === image.src ? image : image.previousElementSibling;
  return image.getBoundingClientRect().width / drawn.getAttribute("width");
})"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window_and_every_letter_is_legible(page, width):
    page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    widths = page.evaluate("[...document.images].map((image) => image.naturalWidth)")
    assert widths and min(widths) > 0
    size, where = page.evaluate(LETTERS)
    assert size >= 11, where
    assert min(page.evaluate(SHRUNK)) > 0.99
