"""Make every table and figure, and the report: `python -m analysis`, from the root."""

import gc
import sys
from pathlib import Path

from analysis.report.build import build
from pipeline.config.params import load_params
from pipeline.config.paths import CURVES, RESULTS
from pipeline.runtime.errors import UserError


def main() -> int:
    try:
        written = build(RESULTS, CURVES, Path("analysis"), load_params())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {len(written)} files from results/; open {written[-1]}")
    for path in written:
        print(f"  {path}")
    gc.freeze()  # or the interpreter looks through all of the libraries again to end
    return 0


if __name__ == "__main__":
    sys.exit(main())
