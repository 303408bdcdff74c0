"""What pydantic finds wrong in params.yaml, in plain English with the way out."""

import difflib
import reprlib
from datetime import date
from typing import Any

from pydantic import ValidationError

from pipeline.runtime.errors import one_line

# By pydantic's name of the error, with the numbers that it knows of it.
WORDS = {
    "int_type": "must be a whole number, without quotes, point or exponent",
    "int_from_float": "must be a whole number, without quotes, point or exponent",
    "float_type": "must be a number, without quotes",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false, without quotes",
    "string_type": "must be a string, in quotes where it looks like a number",
    "string_unicode": "must be a string of whole characters",
    "string_too_short": "must be a string that is not empty",
    "string_too_long": "must be a string of {max_length} characters at most",
    "string_pattern_mismatch": "must hold more than blanks",  # the one pattern that there is
    "list_type": "must be a list, as [1, 2]",
    "too_short": "must be a list of {min_length} or more",
    "too_long": "must be a list of {max_length} at most",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be {le} or less",
    "multiple_of": "must be a multiple of {multiple_of}",
    "literal_error": "must be {expected}",
    "model_type": "must be a section, with its `key: value` lines below it",
    "invalid_key": "must be a word, as every key is",
}


def first_mistake(error: ValidationError) -> str:
    """What is wrong in a line. An unknown key comes first: one that is mistyped is a missing one
    too, and a hint at the right one is of more use than that."""
    details: list[Any] = error.errors(include_url=False)
    first = min(details, key=lambda each: each["type"] != "extra_forbidden")
    key, kind = first["loc"], first["type"]
    names = [_named(part) for part in key]
    if kind == "extra_forbidden":
        missing = [each["loc"] for each in details if each["type"] == "missing"]
        message = f"unknown key; {_meant(key, missing)}"
    elif kind == "missing":
        message = "missing; add it (the preset files under presets/ show every key)"
    elif kind == "value_error":  # a check of ours, whose message has its way out
        message = first["msg"].removeprefix("Value error, ")
    else:
        if kind == "invalid_key":
            names[-1] = _shown(first["input"])
        known = {name: _number(value) for name, value in first.get("ctx", {}).items()}
        says = WORDS[kind].format_map(known) if kind in WORDS else first["msg"]
        value = first["input"]
        null = " (no value is null in YAML)" if value == "None" else ""
        message = f"{says}, not {_shown(value)}; correct it there{null}"
    dotted = one_line(".".join(names))[:60]
    text = ": ".join(filter(None, (dotted, one_line(message)[:200])))
    more = len(details) - 1
    return text + (f" (and {more} more)" if more else "")


def _meant(key: tuple, missing: list[tuple]) -> str:
    beside = [str(each[-1]) for each in missing if each[:-1] == key[:-1]]
    close = difflib.get_close_matches(str(key[-1])[:100], beside, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return "remove it or check its spelling against the file's comments"


def _named(part: str | int) -> str:
    """A part of a key; in quotes where it would be taken for another, as `seed ` for `seed`."""
    text = str(part)
    return text if text and text == one_line(text) and "." not in text else repr(part)


def _number(value: Any) -> Any:
    return f"{value:g}" if isinstance(value, float) else value


def _shown(value: Any) -> str:
    """A value as YAML has it, but for strings and what is long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return value.isoformat() if isinstance(value, date) else _BRIEF.repr(value)


_BRIEF = reprlib.Repr()  # of a value that may be of any size
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 40
_BRIEF.maxdict = _BRIEF.maxlist = 3
_BRIEF.maxlevel = 2
