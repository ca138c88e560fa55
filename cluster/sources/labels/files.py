"""Label files: a CSV with a row for each label of an image, and which image of a listing a row means.

A row means the image whose id it names letter for letter. Else it means the one picture whose path, from the root of
its disk or store on, ends in what the row says, be it without the picture's suffix or with backslashes; a row that
means several pictures so is refused. What the file says is held in memory, half a kilobyte a row.
"""

import csv
import hashlib
import posixpath
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from io import BufferedIOBase

from cam_ops.errors import UsageError
from cam_ops.outside import RAISE, raised
from cam_ops.pictures.formats import format_named, suffix_of
from cam_ops.words import cells_of, delimiter_of
from cluster.process.console import shown
from cluster.sources.beside import Beside, beside_label
from cluster.sources.columns import NEAR, Columns, column_for, known_columns, shown_columns
from cluster.sources.listing import Listing
from cluster.storage.packed import unpacked

MAX_LINE_CHARACTERS = 2**20
ALWAYS_UNPACKED = 16 * 2**20  # bytes; each may be a line, which takes its time
IMAGE = ("uri", *NEAR["image_id"], *NEAR["uri"])


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFile:
    """What a label file says, in its own words."""

    image_column: str
    label_column: str
    counts: Counter[str]  # rows of each word for a class
    lines: dict[str, int]  # of its first row
    words_of: dict[str, tuple[str, ...]]  # by what a row names the image with; rows that repeat it are one
    beside: Beside


def digest_of(path: str) -> str:
    """Return the sha256 of a file's content, unpacked where it is gzip. Raises OSError, also for broken gzip."""
    with unpacked(path, ALWAYS_UNPACKED) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_label_file(path: str, columns: Columns) -> LabelFile:
    """Read a CSV, or one in gzip; `columns` as --columns has them. Raises UsageError for what is no such file."""
    try:
        with unpacked(path, ALWAYS_UNPACKED) as file:
            return _read(path, _lines(file), columns)
    except UnicodeDecodeError:
        raise UsageError(
            f"cannot read {path} as a CSV file: it is no text in UTF-8; save it as a CSV in UTF-8"
        ) from None
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"cannot read {path} as a CSV file: {error}") from None


def _lines(file: BufferedIOBase) -> Iterator[str]:
    """Yield lines with their ends, but none that is longer than memory should hold."""
    first = True
    most = raised(MAX_LINE_CHARACTERS)
    while line := file.readline(most):
        if len(line) == most:
            raise ValueError(f"it has a line of {most} bytes or more; shorten it, {RAISE}")
        yield line.decode("utf-8-sig" if first else "utf-8")
        first = False


def _read(path: str, text: Iterator[str], columns: Columns) -> LabelFile:
    header = next((line for line in text if line.strip()), "")
    if not header:
        raise UsageError(f"the label file {path} is empty; write image_id,label and a row for each image")
    sign = delimiter_of(header.rstrip("\r\n"))
    found = cells_of(header, sign)
    image_column, label_column = _columns_of(path, found, columns)
    at, label_at = found.index(image_column), found.index(label_column)
    counts: Counter[str] = Counter()
    lines: dict[str, int] = {}
    words_of: dict[str, tuple[str, ...]] = {}
    singles: dict[str, tuple[str, ...]] = {}  # one tuple for all rows of a word
    others = [(name, found.index(name)) for name in beside_label(found, label_column) if name != image_column]
    beside = Beside()
    reader = csv.reader(text, delimiter=sign, strict=True)
    for cells in reader:
        if not any(cells):
            continue
        line = reader.line_num + 1
        if len(cells) < len(found) or any(cells[len(found) :]):
            raise UsageError(
                f"{path} line {line}: expected {len(found)} cells, as in the header, found {len(cells)}; put cells "
                f"with a {sign!r} in them in double quotes"
            )
        image, word = cells[at], cells[label_at].strip()
        if not image.strip():
            raise UsageError(
                f"{path} line {line}: the column {image_column} is empty; name an image, or remove the row"
            )
        if word:
            counts[word] += 1
            lines.setdefault(word, line)
            for name, other_at in others:
                beside.note(word, name, cells[other_at], f"{path} line {line}")
            held = words_of.setdefault(image, single := singles.setdefault(word, (word,)))
            if held is not single and word not in held:
                words_of[image] = (*held, word)
    return LabelFile(
        image_column=image_column,
        label_column=label_column,
        counts=counts,
        lines=lines,
        words_of=words_of,
        beside=beside,
    )


def _columns_of(path: str, found: list[str], columns: Columns) -> tuple[str, str]:
    """Return the columns that name the image and its label, raise UsageError where none or several may."""
    image = column_for(found, "image_id", columns, where=path) or _only_known(path, found, "image_id", IMAGE)
    rest = [column for column in found if column != image and column.strip()]
    label = column_for(rest, "label", columns, where=path) if image else None
    label = label or _only_known(path, rest, "label", NEAR["label"])
    if label is None and len(rest) == 1:
        label = rest[0]
    if image is None or label is None:
        no_header = any(map(_is_picture, found))
        cure = "its first line seems to be no header, put image_id,label before it" if no_header else ""
        raise UsageError(
            f"expected the columns image_id and label in {path}, found {shown_columns(found)}; "
            + (cure or "say which they are, with --columns image_id=COLUMN label=COLUMN")
        )
    return image, label


def _only_known(path: str, found: list[str], name: str, known: Collection[str]) -> str | None:
    """Return the only column with a known word for `name`; raise UsageError where several have one."""
    candidates = known_columns(found, known)
    if len(candidates) > 1:
        flags = " or ".join(f"--columns {name}={column}" for column in candidates)
        raise UsageError(f"several columns of {path} may be its {name}: {shown_columns(candidates)}; give {flags}")
    return candidates[0] if candidates else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowMatch:
    """Which rows of a label file mean which images of a listing."""

    num_exact: int
    by_end: dict[str, list[str]]  # image ids, each with the rows that mean it by the end of its path
    strangers: list[str]  # rows that mean no image


def match_rows(path: str, rows: Collection[str], listing: Listing, root: str) -> RowMatch:
    """Find the image that each row means; `root` is the address that ids are paths below.

    Raises UsageError where rows mean several images.
    """
    exact: set[str] = set()
    for batch in listing.batches():
        exact.update(image_id for image_id in batch["image_id"].to_pylist() if image_id in rows)
    rest = [row for row in rows if row not in exact]
    if not rest:
        return RowMatch(num_exact=len(exact), by_end={}, strangers=[])
    meant = _meant_by_end(rest, listing, root)
    several = [(row, images) for row, images in zip(rest, meant, strict=True) if len(images) > 1]
    if several:
        row, images = several[0]
        raise UsageError(
            f"{len(several)} of {len(rows)} image names in {path} mean several pictures, such as {shown(row)}: "
            f"{shown(images[0])} and {shown(images[1])}; write paths below --images"
        )
    by_end: dict[str, list[str]] = {}
    for row, images in zip(rest, meant, strict=True):
        if images:
            by_end.setdefault(images[0], []).append(row)
    strangers = [row for row, images in zip(rest, meant, strict=True) if not images]
    return RowMatch(num_exact=len(exact), by_end=by_end, strangers=strangers)


def _meant_by_end(rows: list[str], listing: Listing, root: str) -> list[list[str]]:
    """Return the images that each row means, two at most: those with its suffix if there are any, else all."""
    by_path: dict[str, list[int]] = {}
    by_stem: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        path = _path_of(row.replace("\\", "/"))
        by_path.setdefault(path, []).append(i)
        by_stem.setdefault(_without_suffix(path), []).append(i)
    same: list[list[str]] = [[] for _ in rows]  # with the row's own suffix
    alike: list[list[str]] = [[] for _ in rows]  # with any
    for batch in listing.batches():
        for image_id in batch["image_id"].to_pylist():
            whole = _path_of(f"{root}/{image_id}")
            for path, rows_of, found in ((whole, by_path, same), (_without_suffix(whole), by_stem, alike)):
                for end in _ends(path):
                    for i in rows_of.get(end, ()):
                        if len(found[i]) < 2:
                            found[i].append(image_id)
    return [with_suffix or without for with_suffix, without in zip(same, alike, strict=True)]


def _ends(path: str) -> Iterator[str]:
    """Yield a path, and what is left of it without its first parts."""
    yield path
    while "/" in path:
        path = path.partition("/")[2]
        yield path


def _path_of(text: str) -> str:
    """Return a path as it is compared: Unicode composed, without `.` and `..` parts, and without its root."""
    path = posixpath.normpath(_plain(text))
    while path.startswith(("/", "../")):
        path = path.partition("/")[2]
    return path


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text.strip())


def _is_picture(name: str) -> bool:
    return format_named(suffix_of(name)) is not None


def _without_suffix(path: str) -> str:
    return path[: path.rindex(".")] if _is_picture(path) else path
