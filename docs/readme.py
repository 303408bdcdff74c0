"""Copies the results of a finished default run into README: `python docs/readme.py PROJECT`.

Copies the run's summary, scoreboard, provenance and three figures to docs/, and rewrites the blocks
of README that are enclosed in comments. Without PROJECT, it only rewrites the blocks.
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
    "shown here": "Shown here",
    "not shown here": "Not shown here: the data contradict the claim, or a part of it",
    "undecided": "Undecided: too few seeds, or too little difference, to tell",
}


def take(project: Path) -> None:
    """Copy the files that README shows from the project of a finished run."""
    DEFAULT.mkdir(exist_ok=True)
    command = (sys.executable, "-m", "pipeline", "summary")
    said = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True)
    (DEFAULT / "summary.txt").write_text(said.stdout.strip() + "\n")
    shutil.copyfile(project / "analysis/timings/scoreboard.csv", DEFAULT / "scoreboard.csv")
    shutil.rmtree(DEFAULT / "sources", ignore_errors=True)
    ignored = shutil.ignore_patterns(".gitignore")  # git would ignore the copied files
    shutil.copytree(project / "results/sources", DEFAULT / "sources", ignore=ignored)
    for name in FIGURES:
        shutil.copyfile(project / f"analysis/figures/{name}.png", HERE / f"{name}.png")


def blocks() -> dict[str, str]:
    """Map the name of each block of README to its text."""
    summary, _, _ = (DEFAULT / "summary.txt").read_text().partition("\nWhere\n")
    board = pd.read_csv(DEFAULT / "scoreboard.csv")
    return {
        "summary": f"```\n{summary.rstrip()}\n```",
        "scoreboard": scoreboard(board),
    }


def scoreboard(board: pd.DataFrame) -> str:
    """The claims by verdict: a list of those shown here, and a paragraph for other verdicts."""
    parts = []
    for verdict, title in VERDICTS.items():
        claims = board[board["verdict"] == verdict]
        if len(claims):
            heading = f"<b>{title}</b> ({len(claims)} of {len(board)})"
            every = [claim(row) for _, row in claims.iterrows()]
            if verdict == "shown here":
                parts.append("\n- ".join([f"{heading}\n", *every]))
            else:
                names = claims["claim"] if verdict == "undecided" else every
                paragraph = f"{heading}: {'; '.join(names)}."
                parts.append(textwrap.fill(paragraph, 119, break_on_hyphens=False))
    return "\n\n".join(parts)


def claim(row: pd.Series) -> str:
    """A claim with its p-value, or with "not tested"."""
    untested = pd.isna(row["p_holm"])
    p = row["p_holm"]
    found = "not tested" if untested else "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"
    return f"{row['claim']} ({found}, n = {row['n']})"


def written(page: str) -> str:
    """The page with its blocks replaced by their current text."""
    for name, text in blocks().items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        page = re.sub(pattern, lambda m, text=text: f"{m[1]}{text}\n{m[2]}", page, flags=re.DOTALL)
    return page


if __name__ == "__main__":
    if len(sys.argv) > 1:
        take(Path(sys.argv[1]))
    README.write_text(written(README.read_text()))
