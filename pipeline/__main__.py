"""`python -m pipeline`: presets, the resolved parameters, and what a run produced."""

import argparse
import sys

from pipeline.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    preset = commands.add_parser("preset", help="write params.yaml for a preset")
    preset.add_argument("name", nargs="?", help="the preset; without it, list them")
    commands.add_parser("params", help="validate params.yaml and print it resolved")
    commands.add_parser("summary", help="print the results of the last run and where they are")
    arguments = parser.parse_args()
    try:
        if arguments.command == "preset":
            _preset(arguments.name)
        elif arguments.command == "params":
            _params()
        else:
            from pipeline.summary import summary

            print(summary())
    except UserError as error:
        sys.exit(f"error: {error}")


def _preset(name: str | None) -> None:
    from pipeline.presets import apply_preset, preset_names

    if name is None:
        print("\n".join(preset_names()))
        return
    apply_preset(name)
    print(f"params.yaml now holds preset {name}; `dvc repro` runs it")


def _params() -> None:
    from pipeline.params import load_params

    print(load_params().model_dump_json(indent=2))


if __name__ == "__main__":
    main()
