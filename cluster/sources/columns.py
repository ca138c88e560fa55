"""Which column of a table is which: --columns, our names, their synonyms, and what to suggest where none fits."""

import shlex
from collections.abc import Iterable, Mapping, Sequence

from cam_ops.errors import UsageError
from cam_ops.words import column_of, folded, near
from cluster.process.console import shown

Columns = Mapping[str, str]
"""From our name for a column to the file's, as --columns says; names that are not in it are looked for."""

NEAR: dict[str, tuple[str, ...]] = {
    "uri": ("path", "file", "filename", "file_name", "image", "url", "filepath", "file_path", "image_path", "img"),
    "image": ("img", "picture", "photo", "bytes", "image_bytes", "content", "jpg", "jpeg", "png", "webp"),
    "image_id": (
        *("id", "image", "filename", "file_name", "file", "path", "key"),
        *("imageid", "image_name", "img_id", "img_name"),
    ),
    "label": (
        *("labels", "class", "category", "breed", "target", "class_id", "class_name", "label_id", "cls", "species"),
        *("label_name", "class_idx", "category_id", "category_name", "tag", "tags"),
    ),
}
"""Our names, each with what other people call such a column: for suggestions, and label files with one alone."""


def parse_columns(words: Iterable[str]) -> Columns:
    """Parse `NAME=COLUMN ...` of --columns, ours before the sign; raise UsageError for names that are none of ours."""
    columns: dict[str, str] = {}
    for word in words:
        name, equals, column = word.partition("=")
        if not equals or not column.strip():
            raise UsageError(f"--columns expects NAME=COLUMN, such as label=breed, got {shown(word)}")
        if name not in NEAR:
            raise UsageError(f"--columns {word}: NAME is one of {', '.join(NEAR)}, got {shown(name)}")
        if name in columns:
            raise UsageError(f"--columns gives {name} twice: {columns[name]} and {column}; give one of them")
        columns[name] = column
    return columns


def column_for(
    found: Sequence[str], name: str, columns: Columns, synonyms: Iterable[str] = (), *, where: object
) -> str | None:
    """Return that one of the `found` columns which is `name`: the user's choice, else `name` itself, else a synonym.

    None where there is none. Raises UsageError, naming the file `where`, for a choice that it has not, and where
    several columns bear the same name.
    """
    try:
        column = column_of(found, [columns[name]] if name in columns else [name, *synonyms])
    except ValueError as error:
        raise UsageError(f"cannot tell the column {name} of {where}: {error}; take one of them out") from None
    if column is None and name in columns:
        meant = near(columns[name], found)
        raise UsageError(
            f"--columns {name}={columns[name]}: {where} has the columns {shown_columns(found)}"
            + (f"; did you mean {name}={meant[0]}?" if meant else "")
        )
    return column


def near_columns(found: Sequence[str], name: str) -> list[str]:
    """Return the `found` columns that may be what we call `name`: known words for it first, then those alike."""
    return list(dict.fromkeys([*known_columns(found, NEAR[name]), *near(name, found)]))


def known_columns(found: Sequence[str], words: Iterable[str]) -> list[str]:
    """Return those of the `found` columns that bear one of the words, each once, in the order of the words."""
    return list(dict.fromkeys(column for word in words for column in found if folded(column) == folded(word)))


def suggestion(found: Sequence[str], name: str) -> str:
    """Say which flag takes a near column as `name`, such as ``--columns label=class``; nothing where none is near."""
    flags = [f"--columns {shlex.quote(f'{name}={column}')}" for column in near_columns(found, name)[:3]]
    return " or ".join(flags)


def shown_columns(found: Sequence[str]) -> str:
    """Return the names of a table's columns as they stand in a message."""
    return ", ".join(shown(column) for column in found[:10]) + (", ..." if len(found) > 10 else "")
