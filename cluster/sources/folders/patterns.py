"""Patterns of addresses: brace ranges such as ``{000000..000009}`` and ``{a,b}``, as bash has them, and wildcards.

A `*` or `?` stands for no `/` and not for the dot that a hidden name begins with; a part `**` for folders at any depth,
or none. What is there under the very name of a pattern is meant by it, and no other.
"""

import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from cam_ops.errors import StorageError, UsageError
from cluster.process.console import shown
from cluster.sources.folders.names import is_hidden_file, is_hidden_folder
from cluster.sources.listing import image_id_of
from cluster.storage.listings import list_level, list_objects
from cluster.storage.objects import is_store, object_version
from cluster.storage.options import StorageOptions

WILDCARDS = frozenset("*?[")
ANY_DEPTH = "**"
MAX_ADDRESSES = 100_000
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(\d+))?|([A-Za-z])\.\.([A-Za-z])")


def is_pattern(address: str) -> bool:
    """Say whether an address may mean others than itself."""
    return bool(WILDCARDS & set(address)) or ("{" in address and braced(address) != [address])


def fixed_part(address: str) -> str:
    """Return the folder above the first part that is a pattern, the address itself if none is."""
    parts = address.split("/")
    first = next((i for i, part in enumerate(parts) if is_pattern(part) or "{" in part), len(parts))
    return "/".join(parts[:first])


def is_literal(address: str) -> bool:
    """Say whether an address means itself alone."""
    return not is_pattern(address) or _is_there(address)


def addresses_of(address: str, options: StorageOptions, *, files_only: bool = False) -> list[str]:
    """Return the addresses that one means, as `found_by` does."""
    return list(found_by(address, options, files_only=files_only))


def found_by(address: str, options: StorageOptions, *, files_only: bool = False) -> dict[str, bool]:
    """Return the addresses that one means, which is itself where it is no pattern; each once, in order of its braces.

    With them comes whether wildcards found a file there. What braces alone name need not be there. Raises StorageError
    where wildcards match nothing.
    """
    if is_literal(address):
        return {address: False}
    found: dict[str, bool] = {}
    for alternative in braced(address):
        if not WILDCARDS & set(alternative) or _is_there(alternative):
            found[alternative] = False
            continue
        matches = dict(sorted(_matching(alternative, options, files_only)))
        if not matches:
            raise StorageError(f"there is nothing like {alternative}; check --images")
        found |= matches
    return found


def distinct(addresses: Sequence[str]) -> list[str]:
    """Return what tells addresses apart, with `/` at its end: as many of their last parts as it takes, at least one.

    Bytes that are not UTF-8 appear as in ids.
    """
    parts = [address.rstrip("/").split("/") for address in addresses]
    for number in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-number:]) for each in parts]
        if len(set(names)) == len(set(addresses)):
            break
    return [f"{image_id_of(name)}/" for name in names]


def braced(text: str) -> list[str]:
    """Return what a text with braces means, the text alone where it has none. Raises UsageError for far too many."""
    start = text.find("{")
    while start >= 0:
        options, end = _options(text, start)
        if options:
            tails = braced(text[end:])
            if len(options) * len(tails) > MAX_ADDRESSES:
                raise UsageError(f"{shown(text)} means more than {MAX_ADDRESSES} addresses; put them into a list")
            return [text[:start] + option + tail for option in options for tail in tails]
        start = text.find("{", start + 1)
    return [text]


def _options(text: str, start: int) -> tuple[list[str], int]:
    """Return what the brace at `start` offers, nothing if it is none of a list or a range, and where it ends."""
    depth, begin, parts = 0, start + 1, []
    for at in range(max(start, 0), len(text)):
        if text[at] == "{":
            depth += 1
        elif text[at] == "}" and depth == 1:
            parts.append(text[begin:at])
            found = _ranged(parts[0], text) if len(parts) == 1 else [word for part in parts for word in braced(part)]
            return found, at + 1
        elif text[at] == "}":
            depth -= 1
        elif text[at] == "," and depth == 1:
            parts.append(text[begin:at])
            begin = at + 1
    return [], len(text)


def _ranged(text: str, whole: str) -> list[str]:
    """Return the numbers or letters of a range, with zeros before them where an end has some; nothing if it is none."""
    found = _RANGE.fullmatch(text)
    if not found:
        return []
    if found[4]:
        first, last = ord(found[4]), ord(found[5])
        return [chr(code) for code in _steps(first, last, 1, whole)]
    ends = found[1], found[2]
    is_padded = any(re.match("-?0.", end) for end in ends)
    width = max(map(len, ends)) if is_padded else 0
    return [f"{number:0{width}d}" for number in _steps(int(ends[0]), int(ends[1]), int(found[3] or 1) or 1, whole)]


def _steps(first: int, last: int, step: int, whole: str) -> range:
    if abs(last - first) // step >= MAX_ADDRESSES:
        raise UsageError(f"{shown(whole)} means more than {MAX_ADDRESSES} addresses; put them into a list")
    return range(first, last + 1, step) if first <= last else range(first, last - 1, -step)


def _is_there(address: str) -> bool:
    """Say whether there is a local file or folder of the very name."""
    return not is_store(address) and os.path.lexists(address)


def _matching(pattern: str, options: StorageOptions, files_only: bool) -> Iterator[tuple[str, bool]]:
    """Yield what an address with wildcards matches, level by level, and whether it is a file."""
    before = fixed_part(pattern)
    bases = [before]
    *folders, last = pattern[len(before) + 1 :].split("/")
    for part in folders:
        bases = [f"{base}{name}" for base in dict.fromkeys(bases) for name in _folders(base, part, options)]
    for base in dict.fromkeys(bases):
        if last == ANY_DEPTH:  # a folder is searched at any depth
            yield base, False
            continue
        if not WILDCARDS & set(last):
            is_file = _is_file(f"{base}/{last}", options)
            yield from [] if is_file is None else [(f"{base}/{last}", is_file)]
            continue
        files, folders = _level(base, options)
        kinds = {**dict.fromkeys([] if files_only else folders, False), **dict.fromkeys(files, True)}
        yield from ((f"{base}/{name}", kinds[name]) for name in _fitting(list(kinds), last))


def _folders(base: str, part: str, options: StorageOptions) -> Iterator[str]:
    """Yield the folders in one that a part of a pattern means, each after a `/`; nothing for the folder itself."""
    if part == ANY_DEPTH:
        pending = [""]
        while pending:
            below = pending.pop()
            yield below
            names = [name for name in _level(base + below, options)[1] if not is_hidden_folder(name)]
            pending += [f"{below}/{name}" for name in names if not _is_link(f"{base}{below}/{name}")]
    elif WILDCARDS & set(part):
        yield from (f"/{name}" for name in _fitting(_level(base, options)[1], part))
    else:
        yield f"/{part}"


def _is_link(address: str) -> bool:
    """Say whether a folder is a link, which may lead back to where it lies."""
    return not is_store(address) and os.path.islink(address)


def _fitting(names: list[str], part: str) -> list[str]:
    """Return the names that a part of a pattern means, hidden ones and a system's only if it begins with a dot."""
    if part in names:
        return [part]
    with_dot = part.startswith(".")
    return [n for n in names if fnmatchcase(n, part) and (with_dot or not (is_hidden_folder(n) or is_hidden_file(n)))]


def _is_file(address: str, options: StorageOptions) -> bool | None:
    """Say whether there is a file, or a folder; None where there is neither."""
    if not is_store(address):
        return os.path.isfile(address) if os.path.lexists(address) else None
    if object_version(address, options) is not None:
        return True
    return False if any(list_objects(address, options)) else None


def _level(base: str, options: StorageOptions) -> tuple[list[str], list[str]]:
    """Return the names of files and of folders in a folder, none where it is none."""
    if is_store(base):
        files, folders = list_level(base, options)
        return [name for name, _ in files], folders
    try:
        with os.scandir(base or "/") as entries:
            by_kind: tuple[list[str], list[str]] = [], []
            for entry in entries:
                by_kind[entry.is_dir()].append(entry.name)
            return by_kind
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    except OSError as error:
        raise StorageError(f"cannot list {base} on {os.uname().nodename}: {error.strerror}; check --images") from None
