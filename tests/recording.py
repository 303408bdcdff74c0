"""Records which params a process reads. It runs in a copy of the project whose params.py imports it
at its end (`Project.record_params`); no test imports it."""

import os
import threading
from pathlib import Path

from pydantic import BaseModel

from pipeline.config.schema import Section


def record(params: type[BaseModel]) -> None:
    """Write every param that this process reads to `$PARAMS_READ/$DVC_STAGE`, one per line.

    Ignores reads by validators and dumps of all params (for MLflow and for workers).
    """
    if "PARAMS_READ" not in os.environ or "DVC_STAGE" not in os.environ:
        return
    file = Path(os.environ["PARAMS_READ"], os.environ["DVC_STAGE"])
    fields = {field.annotation: name for name, field in params.model_fields.items()}
    quiet, noted = threading.local(), set()

    def note(owner: BaseModel, name: str) -> None:
        kind = type(owner)
        if getattr(quiet, "on", False) or (kind, name) in noted:
            return
        if kind not in (params, *fields):
            return  # bounds of a network's config are not params
        annotation = kind.model_fields[name].annotation
        if annotation in fields and issubclass(annotation, Section):
            return  # a section is not a param, but its keys are
        noted.add((kind, name))
        with open(file, "a") as lines:
            lines.write(f"{name}\n" if kind is params else f"{fields[kind]}.{name}\n")

    plain_get, plain_dump = Section.__getattribute__, Section.model_dump

    def get(self, name):
        if not name.startswith("_") and name in type(self).model_fields:
            note(self, name)
        return plain_get(self, name)

    def dump(self, **options):
        if type(self) is not params:
            kept = options.get("include") or set(type(self).model_fields)
            for name in kept - set(options.get("exclude") or ()):
                note(self, name)
        return plain_dump(self, **options)

    def validate(*args, **kwargs):
        quiet.on = True
        try:
            return plain_validate(*args, **kwargs)
        finally:
            quiet.on = False

    plain_validate = params.model_validate
    Section.__getattribute__, Section.model_dump = get, dump
    params.model_validate = validate
