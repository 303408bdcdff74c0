"""`maskgit bench`: run the cases, print them as a table, keep them as JSON."""

import dataclasses
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch

from pipeline.config.paths import RESULTS
from pipeline.runtime.device import pick_device
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import write_json
from pipeline.tools.bench.cases import LAYERS, Result, run_cases
from pipeline.tools.bench.subjects import Size, open_size
from pipeline.tools.bench.timing import precisions, product_rate, product_shapes

SIZES = ("default", "paper")


def bench(names: list[str], threads: int | None = None) -> str:
    """Run the cases of the named sizes and write `results/bench.json`; returns the table as text.

    Args:
        names: some of `SIZES`.
        threads: number of PyTorch's CPU threads; None leaves PyTorch's choice.

    Raises:
        UserError: the machine does not run so many `threads` at once.
    """
    if threads is not None:
        most = os.cpu_count() or 1
        if not 1 <= threads <= most:
            raise UserError(
                f"bench: --threads {threads}, where this machine runs 1 to {most} at once; give so "
                f"many"
            )
        torch.set_num_threads(threads)
    device = pick_device()
    report: dict[str, Any] = {"machine": machine(device), "sizes": {}}
    for name in names:
        report["sizes"][name] = bench_size(open_size(name, device), device)
        write_json(RESULTS / "bench.json", report)
    return f"{table(report)}\n\n{RESULTS / 'bench.json'} holds the same"


def machine(device: torch.device) -> dict[str, Any]:
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{platform.machine()} CPU ({torch.backends.cpu.get_cpu_capability()})"
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def bench_size(size: Size, device: torch.device) -> dict[str, Any]:
    """The cases, and the rates of products: the better of those before and after the cases."""
    before = measured_rates(size, device)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for result in run_cases(size, device, Path(folder)):
            results.append(result)
            print(
                f"bench: {size.name}: {result.case}, {result.network} {result.precision}: "
                f"{_seconds(result.timing.seconds)}",
                flush=True,
            )
    after = measured_rates(size, device)
    rates = {
        precision: {shape: max(rate, after[precision][shape]) for shape, rate in of.items()}
        for precision, of in before.items()
    }
    best = {precision: max(of.values()) for precision, of in rates.items()}
    return {
        "batch": size.batch,
        "parameters": dataclasses.asdict(size.config),
        "product_rates": rates,
        "best_rate": best,
        "cases": [judged(result, results, best) for result in results],
    }


def measured_rates(size: Size, device: torch.device) -> dict[str, dict[str, float]]:
    """FLOP/s for every precision and shape."""
    return {
        precision: {
            "×".join(map(str, shape)): product_rate(shape, precision, device)
            for shape in product_shapes(size.config, size.batch)
        }
        for precision in precisions(device)
    }


def judged(result: Result, results: list[Result], best: dict[str, float]) -> dict[str, Any]:
    """A result, compared with the rate of products, with float32, and with torch's own layers."""
    row, seconds = dataclasses.asdict(result), result.timing.seconds
    row |= row.pop("timing") | {"per_second": result.items / seconds}
    if result.flops:
        row["flops_per_second"] = result.flops / seconds
        row["of_product_rate"] = row["flops_per_second"] / best[result.precision]
    for other in results:
        if other.case != result.case or other.precision != "float32" or other is result:
            continue
        if other.network == result.network:
            row["times_float32"] = other.timing.seconds / seconds
        elif other.network == LAYERS:
            row["times_encoder_layers"] = other.timing.seconds / seconds
    return row


def table(report: dict[str, Any]) -> str:
    from tabulate import tabulate

    parts = ["{device}, {threads} threads, PyTorch {torch}".format(**report["machine"])]
    for name, size in report["sizes"].items():
        rates = ", ".join(f"{p} {rate / 1e9:,.0f}" for p, rate in size["best_rate"].items())
        parts.append(f"{name} size, batch {size['batch']}; products reach {rates} GFLOP/s")
        rows = [_row(case) for case in size["cases"]]
        parts.append(tabulate(rows, headers="keys", tablefmt="simple", disable_numparse=True))
    return "\n\n".join(parts)


def _row(case: dict[str, Any]) -> dict[str, str]:
    seconds = _seconds(case["seconds"])
    gain = case.get("times_float32")
    layers = case.get("times_encoder_layers")
    rate, share = case.get("flops_per_second"), case.get("of_product_rate")
    return {
        "case": case["case"],
        "network": case["network"],
        "precision": case["precision"],
        "time": f"≈ {seconds} (extrapolated)" if case["extrapolated"] else seconds,
        "runs": str(case["repeats"]),
        "a second": f"{case['per_second']:,.3g} {case['unit']}",
        "GFLOP/s": "–" if rate is None else f"{rate / 1e9:,.0f}",
        "of product rate": "–" if share is None else f"{share:.0%}",
        "× float32": "" if gain is None else f"{gain:.2f}" + (" (no gain)" if gain < 1 else ""),
        "× encoder layers": "" if layers is None else f"{layers:.2f}",
    }


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"
