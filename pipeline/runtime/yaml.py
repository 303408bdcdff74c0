"""Parsing YAML that people, and not only our own code, have written."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pipeline.runtime.limits import YAML_BITS, YAML_DEPTH, YAML_EVENTS

if TYPE_CHECKING:
    from ruamel.yaml import YAML
    from ruamel.yaml.events import Event

OTHER_VERSION = "a line %YAML asks for another version than 1.2, which alone is read; delete it"


class NotYaml(ValueError):
    """A text is not the YAML that we read. The message says where, and the way out."""


@lru_cache(maxsize=4)  # a stage looks into dvc.yaml and params.yaml again and again
def parse_yaml(text: str) -> Any:
    """The value of a YAML 1.2 document. Callers share it, so they must not change it.

    Raises:
        NotYaml: it is no YAML; has anchors, with which a short text stands for a value of any size,
            merge keys, which may contradict the keys beside them, or tags; asks for another
            version; or is longer, nested deeper or of larger numbers than any file of ours.
    """
    from ruamel.yaml.error import MarkedYAMLError
    from ruamel.yaml.reader import ReaderError

    try:
        _check_events(text)
        return _parser().load(text)
    except NotYaml:
        raise
    except AssertionError as error:  # how its parser refuses a `%YAML 1.3`
        raise NotYaml(OTHER_VERSION) from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "its text"
        if "duplicate key" in str(error.problem):
            raise NotYaml(f"a key is there twice, at {where}; remove one") from error
        if "incompatible YAML" in str(error.problem):  # a `%YAML 2.0`
            raise NotYaml(OTHER_VERSION) from error
        raise NotYaml(f"see {where}; check indentation, colons, quotes and tabs there") from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise NotYaml(f"line {line} holds a control character; remove it") from error
    except TypeError as error:  # of a key that is made of others, which no mapping takes
        raise NotYaml("a key is a list or a mapping; give it a name") from error
    except (ValueError, OverflowError) as error:
        raise NotYaml("an escape such as \\U00110000 stands for no character; remove it") from error


def _parser() -> "YAML":
    """A parser that says at which line a value lies of which nothing can be made."""
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import SafeConstructor
    from ruamel.yaml.error import YAMLError

    class Constructor(SafeConstructor):
        def construct_non_recursive_object(self, node: Any, tag: str | None = None) -> Any:
            try:
                value = super().construct_non_recursive_object(node, tag)
                if isinstance(value, int) and value.bit_length() > YAML_BITS:
                    raise ValueError(
                        f"a whole number of {value.bit_length():,} bits, more than the limit of "
                        f"{YAML_BITS:,}"
                    )
                return value
            except (NotYaml, YAMLError):
                raise
            except Exception as error:  # a date that is none, a number of 5,000 digits
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
                line = node.start_mark.line + 1
                raise NotYaml(
                    f"a value cannot be read ({reason}), at line {line}; correct it"
                ) from error

    # Pure Python, as libyaml, where there is one, finds faults in other places.
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = Constructor
    return yaml


def _check_events(text: str) -> None:
    """Look through the text before values are made of it, which needs memory and recursion."""
    from ruamel.yaml import YAML
    from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent, DocumentStartEvent

    depth = documents = 0
    for number, event in enumerate(YAML(typ="safe", pure=True).parse(text), start=1):
        where = f"at line {event.start_mark.line + 1}" if event.start_mark else "in it"
        if number > YAML_EVENTS:
            raise NotYaml(f"it holds more than {YAML_EVENTS:,} values and lists; shorten it")
        if isinstance(event, DocumentStartEvent):
            documents += 1
            if event.version not in (None, (1, 2)):
                raise NotYaml(OTHER_VERSION)
            if documents > 1:
                raise NotYaml(f"a second document begins {where}; delete the line ---")
        if refused := _refused(event):
            raise NotYaml(f"{refused} are not read, one is {where}; write plain values there")
        if isinstance(event, CollectionStartEvent):
            depth += 1
            if depth > YAML_DEPTH:
                raise NotYaml(f"it is nested deeper than {YAML_DEPTH} levels {where}; flatten it")
        elif isinstance(event, CollectionEndEvent):
            depth -= 1


def _refused(event: "Event") -> str:
    """What the event is that YAML has and our files have not; "" for all others."""
    from ruamel.yaml.events import AliasEvent, NodeEvent, ScalarEvent

    if not isinstance(event, NodeEvent):
        return ""
    if isinstance(event, AliasEvent) or event.anchor:
        return "anchors and aliases (&, *)"
    if getattr(event, "tag", None) is not None:
        return "tags (!)"
    if isinstance(event, ScalarEvent) and event.value == "<<" and event.style is None:
        return "merge keys (<<)"
    if isinstance(event, ScalarEvent) and event.value == "=" and event.style is None:
        return "equals signs alone (=)"
    return ""
