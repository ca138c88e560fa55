"""Flags to a config. `--config FILE.yaml` and `--recipe blog` are flags before the user's own; the last wins."""

import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, TypeVar

import tyro

from cam_ops.documents import yaml_of
from cam_ops.errors import UsageError
from cam_ops.foreign import HALF, whole
from cam_ops.outside import LIMITS_VARIABLE, raise_limits, size_of_file
from cluster.process.console import beneath, public, shortened
from cluster.storage.options import KNOWN, SECRETS
from jobs.command import print_lines
from jobs.usage import MAX_WORD, refuse_missing, refuse_unknown, sentence_of

Config = TypeVar("Config")
MAX_CONFIG_BYTES = 2**20
LIMITS = "--file-limits"
BOX_RECIPES: dict[str, list[str]] = {"default": [], "blog": ["--normalise", "minmax", "--threshold", "0.2"]}
RECIPES: dict[str, list[str]] = {
    "default": [],
    "blog": [
        *("--image-size", "128", "--mean", "0", "0", "0", "--std", "1", "1", "1"),
        *("--method", "cam", "--refine", "none", "--precision", "fp32", "--classes", "top1"),
        *BOX_RECIPES["blog"],
    ],
}


def parse(
    config: type[Config], arguments: list[str], command: str, recipes: Mapping[str, list[str]] = RECIPES
) -> Config:
    """Parse a command's flags; `recipes` are the flags that a --recipe stands for.

    Raises UsageError for those that it does not have or cannot read, SystemExit(0) for --help.
    """
    config_file = last_value(arguments, "--config") or ""
    arguments, from_file = _take_config_file(arguments)
    if given := os.environ.get(LIMITS_VARIABLE):
        raise_limits(given)
    from_file, arguments = _without_limits(from_file), _without_limits(arguments)
    words = list(takewhile(lambda word: not word.startswith("-"), arguments))  # a flag before them would swallow them
    arguments = from_file + arguments[len(words) :]
    _refuse_stray_secrets(arguments)
    _refuse_bytes(arguments if command == "show" else words + arguments)  # files may be called so, and are shown
    refuse_unknown(config, from_file, command, config_file)
    refuse_unknown(config, arguments, command)
    refuse_missing(config, arguments, command)
    arguments = words + recipes.get(last_value(arguments, "--recipe") or "default", []) + arguments
    said = StringIO()
    try:
        with redirect_stderr(said), redirect_stdout(beneath(sys.stdout)):  # help, which may have colours
            return tyro.cli(config, args=arguments, prog=f"python -m jobs {command}")
    except SystemExit as end:
        if end.code in (0, None):
            print_lines(
                [
                    "Each flag may also stand in a YAML file, --config FILE; those of the command line win.",
                    "--file-limits N takes files of others N times as large as docs/guarantees.md says.",
                ]
            )
            raise
        raise UsageError(sentence_of(said.getvalue(), config, command)) from None


def _without_limits(arguments: list[str]) -> list[str]:
    """Take `--file-limits` out of arguments, and do as it says."""
    rest, words = list[str](), iter(arguments)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag.replace("_", "-") == LIMITS:
            raise_limits(value if equals else next(words, ""))
        else:
            rest.append(word)
    return rest


def _refuse_stray_secrets(arguments: list[str]) -> None:
    """Raise UsageError for a credential behind a misspelt flag: tyro's own message would repeat it."""
    flag = ""
    for word in arguments:
        name, _, value = word.partition("=") if word.startswith("--") else (flag, "", word)
        flag = name
        secret = value.partition("=")[0].removeprefix("s3.").removeprefix("gs.")
        if secret in SECRETS and flag.replace("_", "-") != "--storage-options":
            raise UsageError(f"a word {secret}=... stands behind {flag or 'no flag'}, it belongs to --storage-options")


def _refuse_bytes(arguments: list[str]) -> None:
    """Raise UsageError for a word that is not UTF-8: it would stand in files that nobody could read then."""
    flag = ""
    for word in arguments:
        flag = word.partition("=")[0] if word.startswith("--") else flag
        if HALF.search(word):
            shown = shortened(whole(word), MAX_WORD)
            raise UsageError(
                f"expected text in UTF-8{f' behind {flag}' if flag else ''}, got {shown}; rename it, or give another"
            )


def shown_line(command: str, arguments: list[str]) -> tuple[str, ...]:
    """Return a command line that parses, from the command on, as others may read it.

    It lacks the values of --storage-options, in every form that `parse` takes, and credentials in addresses; bytes that
    are not UTF-8 become escapes.
    """
    shown, is_secret = [command], False
    words = iter(arguments)
    for word in words:
        flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if flag == "--config":  # `parse` takes it out: what follows belongs to the flag before
            shown += [word] if equals else [word, *islice(words, 1)]
            continue
        if flag:
            is_secret = flag.replace("_", "-") == "--storage-options"
        if is_secret and (equals or not flag):
            word = f"{flag}{equals}{_without_value(value)}"
        shown.append(word)
    return tuple(whole(public(word)) for word in shown)


def _without_value(word: str) -> str:
    key = word.partition("=")[0]
    is_known = any(key.removeprefix(f"{store}.") in names for store, names in KNOWN.items())
    return f"{key}=..." if is_known else "..."


def _take_config_file(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Split off `--config FILE`; return the other arguments, and the file's entries as flags."""
    arguments = [part for word in arguments for part in _split(word, "--config")]
    if "--config" not in arguments:
        return arguments, []
    at = arguments.index("--config")
    if at + 1 == len(arguments):
        raise UsageError("--config expects a YAML file")
    path = Path(arguments[at + 1])
    try:
        if size_of_file(path) > MAX_CONFIG_BYTES:
            raise ValueError(f"it has more than {MAX_CONFIG_BYTES} bytes; put lists of words into files of their own")
        document = yaml_of(path.read_text("utf-8-sig"), is_typed=True)
        if not isinstance(document, dict) or {"help", "h", "config"} & document.keys():
            raise UsageError(f"expected flags and their values in {path}, as in `threshold: 0.2`")
        flags = [word for name, value in document.items() for word in _as_flags(str(name), value)]
    except UnicodeDecodeError:
        raise UsageError(f"cannot read --config {path}: it is no text in UTF-8; save it as such") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read --config {path}: {error}") from None
    return arguments[:at] + arguments[at + 2 :], flags


def _split(word: str, flag: str) -> list[str]:
    """Return `--flag=value` as two words, any other word as it is."""
    name, equals, value = word.partition("=")
    return [flag, value] if name == flag and equals else [word]


def _as_flags(name: str, value: Any) -> list[str]:
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [flag if value else "--no-" + flag[2:]]
    if isinstance(value, dict):
        return [flag, *(f"{key}={entry}" for key, entry in value.items())]
    if isinstance(value, list):
        return [flag, *map(str, value)]
    return [flag, str(value)]


def out_of(arguments: list[str]) -> str | None:
    """Return the run directory that a command's arguments name, by flag or as the first word after the command."""
    try:
        arguments, from_file = _take_config_file(arguments)
    except UsageError:
        from_file = []
    has_out = arguments[:1] in (["rebox"], ["export"], ["bench"])  # whose first word is another thing
    positional = arguments[1] if len(arguments) > 1 and not arguments[1].startswith("-") and not has_out else None
    out = last_value(arguments, "--out") or last_value(from_file, "--out") or positional
    return out and public(out)


def wants(arguments: list[str], flag: str) -> bool:
    """Say whether a command's arguments switch a flag on, whether or not they parse."""
    try:
        arguments, from_file = _take_config_file(arguments)
    except UsageError:
        from_file = []
    said = [word for word in from_file + arguments if word in (flag, f"--no-{flag[2:]}")]
    return said[-1:] == [flag]


def last_value(arguments: list[str], flag: str) -> str | None:
    """Return the value that a flag has last, None where it is not given."""
    words = [part for word in arguments for part in _split(word, flag)]
    values = [words[i + 1] for i, word in enumerate(words[:-1]) if word == flag]
    return values[-1] if values else None
