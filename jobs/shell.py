"""What a shell asks of `camray`: its version, and how to complete its commands."""

import importlib
import platform
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout, suppress
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from typing import Any

import tyro

from cam_ops.errors import UsageError

SHELLS = ("bash", "zsh")
PACKAGES = ("ray", "torch")


def version_line() -> str:
    """Return the versions of camray, Python, Ray and torch, none of which is imported."""
    others = ", ".join(f"{package} {_version(package)}" for package in PACKAGES)
    return f"camray {_version('camray')}, Python {platform.python_version()}, {others}"


def config_of(command: str) -> type[Any]:
    """Return a command's config dataclass, which bears its name."""
    config: type[Any] = getattr(importlib.import_module(f"jobs.{command}"), f"{command.capitalize()}Config")
    return config


def completion_script(commands: Iterable[str], words: list[str]) -> str:
    """Return what a shell reads to complete `camray COMMAND --flag`; `words` name the shell."""
    if len(words) != 1 or words[0] not in SHELLS:
        raise UsageError(f"--completion expects {' or '.join(SHELLS)}, got {' '.join(words) or 'nothing'}")
    configs: dict[str, Callable[..., Any]] = {command: config_of(command) for command in commands}
    with redirect_stdout(StringIO()) as printed, suppress(SystemExit):
        tyro.extras.subcommand_cli_from_dict(configs, prog="camray", args=["--tyro-print-completion", words[0]])
    lines = printed.getvalue().splitlines(keepends=True)
    # tyro's script takes each line of a help text for a completion of its own
    return "".join(line.replace(r"\n", " ") if line.startswith("COMPLETION_SPEC = ") else line for line in lines)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
