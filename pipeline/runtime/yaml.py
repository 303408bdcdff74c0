"""Parsing YAML that people, and not only our own code, have written."""

from functools import lru_cache
from typing import Any

from pipeline.runtime.limits import YAML_DEPTH


class NotYaml(ValueError):
    """A text is not the YAML that we read. The message says where, and the way out."""


@lru_cache(maxsize=4)  # a stage looks into dvc.yaml and params.yaml again and again
def parse_yaml(text: str) -> Any:
    """The value of a YAML 1.2 document. Callers share it, so they must not change it.

    Raises:
        NotYaml: it is no YAML; or has anchors, with which a short text stands for a value of any
            size, or is nested deeper than any file of ours.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError

    try:
        _check_events(text)
        # Pure Python, as libyaml, where there is one, finds faults in other places.
        return YAML(typ="safe", pure=True).load(text)
    except NotYaml:
        raise
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "its text"
        if "duplicate key" in str(error.problem):
            raise NotYaml(f"a key is there twice, at {where}; remove one") from error
        raise NotYaml(f"see {where}; check indentation, colons and quotes there") from error
    except Exception as error:  # a date that is none, a number of 5,000 digits
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
        raise NotYaml(f"a value cannot be read ({reason}); correct it") from error


def _check_events(text: str) -> None:
    """Look through the text before values are made of it, which needs memory and recursion."""
    from ruamel.yaml import YAML
    from ruamel.yaml.events import (
        AliasEvent,
        CollectionEndEvent,
        CollectionStartEvent,
        NodeEvent,
    )

    depth = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        where = f"at line {event.start_mark.line + 1}" if event.start_mark else "in it"
        if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor):
            raise NotYaml(f"anchors and aliases (&, *) are not read, one is {where}; write it out")
        if isinstance(event, CollectionStartEvent):
            depth += 1
            if depth > YAML_DEPTH:
                raise NotYaml(f"it is nested deeper than {YAML_DEPTH} levels {where}; flatten it")
        elif isinstance(event, CollectionEndEvent):
            depth -= 1
