"""`python -m pipeline`: presets, resolved params, the cost of a run, samples, metrics and
results."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.runtime.errors import UserError
from pipeline.runtime.process import set_up

Command = Callable[[argparse.Namespace], None]


def main() -> None:
    arguments = _parser().parse_args()
    set_up()
    try:
        arguments.run(arguments)
    except UserError as error:
        sys.exit(f"error: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(run: Command, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(run.__name__.removeprefix("_"), help=text, description=text)
        added.set_defaults(run=run)
        return added

    preset = command(_preset, "write params.yaml for a preset")
    preset.add_argument("name", nargs="?", help="the preset; without it, list them")
    command(_params, "validate params.yaml and print it resolved")
    command(_summary, "print the results of the last run and where they are")
    plan = command(_plan, "print FLOPs, sizes, memory and time of a run, training nothing")
    plan.add_argument("name", nargs="?", help="a preset; without it, params.yaml")
    plan.add_argument("--images", type=int, help="size of the data set, if it is not prepared yet")
    plan.add_argument("--classes", type=int, help="its classes, likewise")
    plan.add_argument("--tflops", type=float, help="rate that a device achieves, for times")
    bench = command(_bench, "time training, decoding and the rest on this machine")
    bench.add_argument("--size", choices=["default", "paper", "all"], default="all")
    bench.add_argument("--threads", type=int, help="of PyTorch's work on the CPU")
    sample = command(_sample, "write pictures of a trained or a released model")
    sample.add_argument("--count", type=int, default=40, help="of samples (default: 40)")
    sample.add_argument("--classes", help="indices that they cycle through, as 3,5; default: all")
    sample.add_argument("--output", type=Path, default=Path("samples.png"))
    export = command(_export, "write the samples of a model for evaluators elsewhere")
    export.add_argument("network", choices=["transformer", "autoregressive"])
    export.add_argument("path", type=Path, help="an .npz (the ADM suite's), or a folder for PNGs")
    export.add_argument("--all", action="store_true", help="not only those that Table 1 measures")
    measure = command(_measure, "print the metrics of an image set against the training images")
    measure.add_argument("path", type=Path, help="a folder of PNGs, an .npy or an .npz")
    return parser


def _preset(arguments: argparse.Namespace) -> None:
    from pipeline.config.presets import apply_preset, preset_names

    if arguments.name is None:
        print("\n".join(preset_names()))
        return
    apply_preset(arguments.name)
    print(f"params.yaml now holds preset {arguments.name}; `dvc repro` runs it")


def _params(arguments: argparse.Namespace) -> None:
    from pipeline.config.params import load_params

    print(load_params().model_dump_json(indent=2))


def _summary(arguments: argparse.Namespace) -> None:
    from pipeline.tools.summary import summary

    print(summary())


def _plan(arguments: argparse.Namespace) -> None:
    from pipeline.config.params import load_params
    from pipeline.config.presets import preset_params
    from pipeline.tools.plan.report import data_size, plan_text

    params = preset_params(arguments.name) if arguments.name else load_params()
    size = data_size(params, arguments.images, arguments.classes)
    print(plan_text(params, size, arguments.tflops))


def _bench(arguments: argparse.Namespace) -> None:
    from pipeline.tools.bench.report import SIZES, bench

    sizes = list(SIZES) if arguments.size == "all" else [arguments.size]
    print(bench(sizes, arguments.threads))


def _sample(arguments: argparse.Namespace) -> None:
    from pipeline.config.params import load_params
    from pipeline.tools.sample import sample

    try:
        classes = [int(x) for x in arguments.classes.split(",")] if arguments.classes else None
    except ValueError:
        raise UserError(f"--classes: '{arguments.classes}' is no list of numbers, as 3,5") from None
    if arguments.count < 1:
        raise UserError(f"--count: {arguments.count} samples cannot be drawn; give 1 or more")
    print(f"samples in {sample(load_params(), arguments.count, classes, arguments.output)}")


def _export(arguments: argparse.Namespace) -> None:
    from pipeline.tools.export import export_samples

    count = export_samples(arguments.network, arguments.path, everything=arguments.all)
    print(f"{count} samples in {arguments.path}")


def _measure(arguments: argparse.Namespace) -> None:
    from pipeline.config.params import load_params
    from pipeline.tools.measure import measure

    print(measure(load_params(), arguments.path))


if __name__ == "__main__":
    main()
