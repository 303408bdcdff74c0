"""The report as a document."""

import re
from html.parser import HTMLParser

import pytest

from analysis.report.provenance import commit
from tests.params import make_params
from tests.synthetic_results import analyse, number_of_figures, write_results
from tests.synthetic_tables import evaluation_rows

VOID = {"meta", "link", "img", "source", "br", "hr", "input"}
PARAMS = make_params(analysis={"dpi": 60})


class Document(HTMLParser):
    """Checks that tags are nested, and collects what they say."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes), f"{tag} has an attribute twice"
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_document_is_well_formed_complete_and_of_one_piece(report):
    text = report.read_text()
    document = Document(text)
    assert text.startswith("<!doctype html>") and len(text) < 6_000_000
    ids = [attributes["id"] for _, attributes in document.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for attributes in document.all("a")]
    assert links and {link.removeprefix("#") for link in links} <= set(ids)
    images = document.all("img")
    assert len(images) == number_of_figures(report)
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)
    assert all(len(image["alt"]) > 20 for image in images)
    assert not re.search(r"https?:|url\(|@import|<script src|<link rel=.stylesheet", text)
    assert "nan" not in re.sub(r'"data:[^"]*"', "", text)


def test_every_table_and_figure_is_there(report):
    document = Document(report.read_text())
    articles = {attributes["id"] for attributes in document.all("article")}
    names = {path.stem for path in (report.parent / "figures").glob("*.png")} - {"samples"}
    for folder in ("tables", "timings"):
        names |= {f"{path.stem}-table" for path in (report.parent / folder).glob("*.csv")}
    assert articles == names
    assert {f"table{i}-table" for i in (1, 2, 3, 4, 5)} <= articles
    assert {f"figure{i}" for i in (2, 4, 5, 6, 7, 8, 9, 10)} <= articles


def test_what_was_run_is_told(report):
    text = report.read_text()
    for fact in (
        "mnist5k: 4,000 training and 1,000 validation images of 3 classes, 28×28 grey",
        "7×7 of 64 codes, 100% of them used; PSNR 18.75 dB",
        "2 CPUs, 16 GiB, 2 × H100",
        "on 2 other hosts: H100",
        "3.0 hours in 2 stages",
        "abcdef012345 and abcdef012345 (changed)",
        "2025-01-02T03:04:05Z",
        "evaluate-run",
        "choice_temperature: 4.5",
    ):
        assert fact in text, fact
    assert "maskgit-experiment" not in text and "mlflow:" not in text


@pytest.mark.parametrize(
    ("dirty", "told"), [(False, "abc"), (True, "abc (changed)"), (None, "abc (changes unknown)")]
)
def test_whether_the_code_was_changed_is_told_as_far_as_it_is_known(dirty, told):
    assert commit({"commit": "abc", "dirty": dirty}) == told


def test_a_run_without_records_says_what_it_knows(tmp_path):
    analyse(write_results(tmp_path / "results"), tmp_path / "out", PARAMS)
    text = (tmp_path / "out/report.html").read_text()
    assert "<dt>Commit</dt>" not in text and "The run behind each stage" not in text
    assert "cpu, 2 threads (Figure 4)" in text


def test_names_are_escaped(report):
    text = report.read_text()
    assert "two &lt;&amp;&gt;" in text and "two <&>" not in text


def test_the_report_opens_with_the_scoreboard_and_its_links_lead_to_the_exhibits(report):
    text = report.read_text()
    first = text.split("<article")[1].split("</article>")[0]
    assert first.startswith(' id="scoreboard-table"')
    lines = Document(f"<article{first}</article>").all("a")
    verdicts = re.findall(
        r"<td[^>]*>(shown here|not shown here(?:: its parts differ)?|undecided \(n.=.\d\))<", first
    )
    assert len(lines) == len(verdicts) == first.count('<th scope="row">') > 20
    counts = re.search(
        r"Of the paper's (\d+) claims: <strong>shown here (\d+)</strong>, not shown (\d+), "
        r"undecided (\d+); of (\d+) that it supposes: shown here (\d+), not shown (\d+), "
        r"undecided (\d+); of (\d+) more of ours: shown here (\d+), not shown (\d+), "
        r"undecided (\d+)\.",
        first.replace("&#39;", "'"),
    )
    groups = [list(map(int, counts.groups()[at : at + 4])) for at in (0, 4, 8)]
    assert all(total == sum(words) for total, *words in groups)
    assert sum(total for total, *_ in groups) == len(verdicts) and groups[1][0] == 2
    assert sum(shown for _, shown, *_ in groups) == verdicts.count("shown here")
    articles = {attributes["id"] for attributes in Document(text).all("article")}
    assert {link["href"].removeprefix("#") for link in lines} <= articles


def test_the_report_says_when_it_is_the_other_way_round(tmp_path):
    results = write_results(tmp_path / "results")
    rows = evaluation_rows()
    names = {"transformer": "autoregressive", "autoregressive": "transformer"}
    rows["images"] = rows["images"].replace(names)
    rows.to_csv(results / "evaluation/rows.csv", index=False)
    analyse(results, tmp_path / "out", PARAMS)
    text = (tmp_path / "out/report.html").read_text()
    assert "FID (classifier): <strong>VQGAN∗</strong> is better than MaskGIT, unlike" in text
