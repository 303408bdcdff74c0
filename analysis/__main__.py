"""Make all tables, figures and the report: run `python -m analysis` in the project's root."""

import os
import sys
from pathlib import Path

from analysis.report.build import build
from pipeline.config.params import load_params
from pipeline.config.paths import RESULTS
from pipeline.runtime.dag import require_params, require_unchanged, stage_deps, stage_params
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import bug
from pipeline.runtime.files import read_json, tree_hash
from pipeline.runtime.process import end_quickly, end_when_told, reader_may_leave
from pipeline.runtime.provenance import described, out_of_date
from pipeline.runtime.stage import log_reproduction


def main() -> None:
    try:
        params, listed, stale = load_params(), stage_params("analysis"), out_of_date()
        deps = [(dep, tree_hash(dep)) for dep in stage_deps("analysis")]
        written = build(RESULTS, Path("analysis"), params, stale)
        if "DVC_STAGE" in os.environ:  # without DVC, results may come from several runs
            metrics, report = written[-2:]
            if left := log_reproduction(params, read_json(metrics), [metrics, report]):
                print(f"analysis: {left}")
        require_unchanged(deps, "analysis")
        require_params(listed, "analysis")
    except UserError as error:
        sys.exit(f"error: {error}")
    except Exception as error:
        sys.exit(f"error: {bug(error, 'analysis')}")
    if stale:
        print(f"left out results that are out of date (run `dvc repro`): {described(stale)}")
    print(f"made {len(written)} files from the results; open {written[-1]}")
    end_quickly()


if __name__ == "__main__":
    end_when_told()
    with reader_may_leave():
        main()
