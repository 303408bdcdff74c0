"""YAML 1.2, read as DVC reads it: 1e-4 is a number, and yes is a word."""

from functools import lru_cache
from typing import Any


class NotYaml(ValueError):
    """A text is not valid YAML. The message says where, and what is wrong."""


@lru_cache(maxsize=4)  # a stage reads dvc.yaml and params.yaml again and again
def parse_yaml(text: str) -> Any:
    """Parse a YAML document. Callers share the value, so they must not change it.

    Raises:
        NotYaml: the text is not valid YAML, or names a key twice.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise NotYaml(f"{where}{error.problem or error.context}") from error
    # Of a value that its type refuses, such as a date in month 13 or a key that is a list.
    except Exception as error:
        raise NotYaml(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}") from error
