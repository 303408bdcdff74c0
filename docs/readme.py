"""Update README with the results of a finished default run, and with the verdicts of two more: one
with `evaluation.seeds` and `sweep.seeds` of 3 to 5, one on a Xeon: `docs/readme.py RUN SEEDS XEON`.

Copies the run's summary, scoreboard, three figures and `results/sources` to docs/, and rewrites the
blocks of README between HTML comments. Without these folders, only rewrites the blocks.
"""

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
DEFAULT = HERE / "default"
FIGURES = ("samples", "figure2", "figure8")
VERDICTS = {
    "shown here": "Shown in this run, with seeds 3 to 5, and on a Xeon",
    "not shown here": "Contradicted by all three runs",
    "not again": "Undecided in another run",
    "undecided": "Undecided",
    "by construction": "By construction",
}


def take(project: Path) -> None:
    """Copy the results that README shows from a finished run's project."""
    DEFAULT.mkdir(exist_ok=True)
    command = (sys.executable, "-m", "pipeline", "summary")
    said = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True)
    (DEFAULT / "summary.txt").write_text(said.stdout.strip() + "\n")
    shutil.copyfile(project / "analysis/timings/scoreboard.csv", DEFAULT / "scoreboard.csv")
    shutil.rmtree(DEFAULT / "sources", ignore_errors=True)
    ignored = shutil.ignore_patterns(".gitignore")  # else git would ignore the copies
    shutil.copytree(project / "results/sources", DEFAULT / "sources", ignore=ignored)
    for name in FIGURES:
        shutil.copyfile(project / f"analysis/figures/{name}.png", HERE / f"{name}.png")


def blocks() -> dict[str, str]:
    """The text of each block of README, by the block's name. A claim counts as shown, or not shown,
    if the two other runs have the same verdict."""
    summary, _, _ = (DEFAULT / "summary.txt").read_text().partition("\nWhere\n")
    board = pd.read_csv(DEFAULT / "scoreboard.csv")
    again = pd.concat(map(pd.read_csv, sorted(DEFAULT.glob("replication-*.csv"))))
    verdicts = again.groupby("claim")["verdict"].agg(set)
    decided = board["verdict"].isin(["shown here", "not shown here"])
    lost = decided & (board["claim"].map(verdicts) != board["verdict"].map(lambda v: {v}))
    board["claim"] = board["claim"].mask(lost, board["claim"] + ": " + board["verdict"])
    board["verdict"] = board["verdict"].mask(lost, "not again")
    return {
        "summary": f"```\n{summary.rstrip()}\n```",
        "scoreboard": scoreboard(board),
    }


def scoreboard(board: pd.DataFrame) -> str:
    """The paper's claims that are shown here, those that are not, and counts of the others."""
    paper, parts = board[board["source"].notna()], []
    for verdict, title in VERDICTS.items():
        claims = paper[paper["verdict"] == verdict]
        total = len(paper) if parts else f"the paper's {len(paper)} claims"
        heading = f"<b>{title}</b> ({len(claims)} of {total})"
        every = [claim(row) for _, row in claims.iterrows()]
        if verdict == "shown here":
            parts.append("\n- ".join([f"{heading}\n", *every]))
        elif verdict in ("not shown here", "not again") and every:
            parts.append(f"{heading}: {'; '.join(every)}.")
        elif verdict == "undecided":
            undecided = f"{heading}; [all verdicts](docs/default/scoreboard.csv)."
    own = board[board["source"].isna()]["verdict"].value_counts()
    ours = ", ".join(f"{count} {verdict}" for verdict, count in own.items())
    parts.append(f"{undecided} {heading}. <b>Our own {own.sum()} claims</b>: {ours}.")
    wrapped = [textwrap.fill(text, 119, break_on_hyphens=False) for text in parts[1:]]
    return "\n\n".join([parts[0], *wrapped])


def claim(row: pd.Series) -> str:
    """The claim's text with its corrected p and number of seeds."""
    untested = pd.isna(row["p_holm"])
    p = row["p_holm"]
    found = "not tested" if untested else "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"
    return f"{row['claim']} ({found}, n = {row['n']})"


def written(page: str) -> str:
    """The page with all blocks rewritten."""
    for name, text in blocks().items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        page = re.sub(pattern, lambda m, text=text: f"{m[1]}{text}\n{m[2]}", page, flags=re.DOTALL)
    return page


if __name__ == "__main__":
    if len(sys.argv) > 1:
        take(Path(sys.argv[1]))
        for name, folder in zip(("seeds", "xeon"), sys.argv[2:], strict=True):
            board = Path(folder) / "analysis/timings/scoreboard.csv"
            shutil.copyfile(board, DEFAULT / f"replication-{name}.csv")
    README.write_text(written(README.read_text()))
