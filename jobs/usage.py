"""Flags that a command does not have, and what is wrong with the values of others, in one sentence."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from itertools import takewhile
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from tyro.conf import Positional

from cam_ops.errors import UsageError
from cam_ops.words import near
from cluster.process.console import public, shortened

OF_ALL = ("--config", "--file-limits", "--help", "--help-all")
MAX_WORD, MAX_MESSAGE = 80, 400  # characters
POSITIONAL = get_args(Positional[int])[1]
FRAME = "╭╮╰╯│─ "  # with blanks and hyphens alone where stdout is no UTF-8


def flags_of(config: type) -> list[str]:
    """Return the flags of a command's config dataclass."""
    return [flag for field, hint in _fields(config) if not _is_positional(hint) for flag in _flags(field, hint)]


def positionals_of(config: type) -> list[str]:
    """Return the names of the words that a command needs before its flags, as messages show them."""
    found = _fields(config)
    return [field.name.upper() for field, hint in found if _is_positional(hint) and _is_required(field)]


def refuse_unknown(config: type, arguments: Iterable[str], command: str, where: str = "") -> None:
    """Raise UsageError for the first flag that the command does not have; `where` is the file that it stands in."""
    known = flags_of(config)
    for word in takewhile(lambda word: word != "--", arguments):
        flag = word.partition("=")[0].replace("_", "-")
        if not flag.startswith("--") or flag in known or (not where and flag in OF_ALL):
            continue
        shown, of = (flag[2:], f"{where}: ") if where else (flag, "")
        cure = f"`{command} --help-all` lists all"
        if nearest := near(flag[2:], (each[2:] for each in known), most=1):
            cure = f"is it {nearest[0] if where else f'--{nearest[0]}'}?"
        raise UsageError(f"{of}{_short(shown)} is no flag of {command}; {cure}")


def refuse_missing(config: type, arguments: list[str], command: str) -> None:
    """Raise UsageError where flags that the command needs are not given."""
    given = {word.partition("=")[0].replace("_", "-") for word in arguments}
    needed = [
        flag
        for field, hint in _fields(config)
        if _is_required(field) and not _is_positional(hint)
        for flag in _flags(field, hint)
    ]
    missing = [flag for flag in needed if flag not in given]
    if missing and not {"-h", "--help"} & given:
        raise UsageError(f"{command} needs {' and '.join(missing)}; see python -m jobs {command} --help")


def sentence_of(text: str, config: type, command: str) -> str:
    """Return what tyro says of arguments that it does not take, which is a page in a frame, as one sentence."""
    framed = [line.strip(FRAME) for line in text.splitlines()]
    lines = [line for line in framed if line and set(line) != {"-"}][1:]  # without the title
    lines = list(takewhile(lambda line: not line.startswith(("Argument helptext", "For full helptext")), lines))
    said = " ".join(" ".join(lines).split())
    if "Missing from" in said:
        what = f"{command} needs {' and '.join(positionals_of(config))}"
    elif found := re.search(r"invalid choice '(.*)' for argument '(\S+?)'\. Expected one of \((.*?),?\)\.$", said):
        word, flag, choices = found[1], found[2], re.findall(r"'([^']*)'", found[3])
        nearest = near(word, choices, most=1)
        what = f"{flag} expects one of {', '.join(choices)}, got {_short(word)}"
        what += f"; is it {nearest[0]}?" if nearest else ""
    elif found := re.search(r"Missing value for argument '(\S+?)'", said):
        what = f"{found[1]} expects a value"
    elif found := re.search(r"Unrecognized options: (.*)$", said):
        what = f"{command} does not know what to do with {_short(found[1])}"
    elif found := re.search(r"Error parsing (\S+?):.*?\[(.*?)\]", said):
        what = f"{found[1]} expects {_kind_of(text, found[1])}, got {_short(found[2])}"
    else:
        what = shortened(said, MAX_MESSAGE)
    return f"{public(what)}; see python -m jobs {command} --help"


def _kind_of(text: str, flag: str) -> str:
    """Return the kind of value that a flag takes, of tyro's help for it."""
    lines = (line.strip(FRAME) for line in text.splitlines())
    kind = next((line.removeprefix(flag).strip() for line in lines if line.startswith(f"{flag} ")), "another value")
    several = re.sub(r"\[(\w+) \[\1 \.\.\.\]\]", r"\1 ...", kind.replace("{None}|", ""))
    return " or ".join(part.strip("{}") for part in several.split("|"))


def _short(word: str) -> str:
    return shortened(word, MAX_WORD)


def _fields(config: type) -> Iterator[tuple[Field[Any], Any]]:
    """Yield the fields that are flags or words of their own, each with its annotation."""
    hints = get_type_hints(config, include_extras=True)
    for field in fields(config):
        inner = get_args(hints[field.name])[0] if get_origin(hints[field.name]) is Annotated else hints[field.name]
        if is_dataclass(inner) and isinstance(inner, type):
            yield from _fields(inner)
        else:
            yield field, hints[field.name]


def _flags(field: Field[Any], hint: Any) -> list[str]:
    notes = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    names = [note.name for note in notes if getattr(note, "name", None)]
    name = (names or [field.name])[0].replace("_", "-")
    return [f"--{name}", *([f"--no-{name}"] if hint is bool else [])]


def _is_positional(hint: Any) -> bool:
    return get_origin(hint) is Annotated and POSITIONAL in get_args(hint)[1:]


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING
