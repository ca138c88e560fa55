"""Tables in text: CSV, JSON lines, and plain lists with a path or URI a line; each perhaps packed by gzip.

They are read as streams: neither a long file nor a small one that gzip has packed takes memory. A CSV's cells are
texts, also where they are numbers.
"""

import codecs
import gzip
import json
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv

from cam_ops.errors import UsageError
from cam_ops.outside import MAX_COLUMNS, POINTER, RAISE, raised, refuse_pointer
from cam_ops.words import DELIMITERS, cells_of, column_of, delimiter_of
from cluster.process.console import shown
from cluster.sources.listing import AND
from cluster.sources.sorting import ROWS_PER_BATCH
from cluster.sources.source import Asked
from cluster.sources.tables.roles import roles_of
from cluster.sources.tables.values import Taken, taken_of, used_of
from cluster.storage.packed import GZIP, UnpacksToMore, check_unpacked, unpacked

CSV, JSON_LINES, LINES = (".csv", ".tsv"), (".jsonl", ".ndjson"), (".txt",)
PACKED = ".gz"
SUFFIXES = tuple(f"{suffix}{packed}" for suffix in (*CSV, *JSON_LINES, *LINES) for packed in ("", PACKED))
CSV_BLOCK_BYTES = 4 * 2**20  # and the longest row; a dozen blocks are read ahead
MAX_LINE_BYTES = 4 * 2**20
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
PATH_AND_LABEL = re.compile(r"\S.*\.(?:jpe?g|png|webp|bmp|tiff?|gif)[\s,;]+[\w.-]+", re.IGNORECASE)
LABELS = pa.list_(pa.string())  # stands for a text, or a list of them
KINDS: dict[type, pa.DataType] = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A table as it is read: what a listing takes of it."""

    taken: Taken
    batches: Iterator[pa.RecordBatch]  # schema `taken.schema`
    label_hint: str = ""  # as in `Listing`


def open_list(address: str, path: str, asked: Asked) -> Opened:
    """Open a list at `path`, whose kind the suffix of `address` says.

    Raises UsageError for a file that is no such list, OSError for one that cannot be read; its batches raise both, and
    Arrow's errors.
    """
    kind = address.lower().removesuffix(PACKED)
    try:
        is_packed = check_unpacked(path)
    except gzip.BadGzipFile as error:
        raise _refused(address, error) from None
    with _opened(address, path) as file:
        start = file.read(len(POINTER))
    refuse_pointer(address, start)
    if start.startswith(UTF_16):
        raise UsageError(f"expected {address} in UTF-8, it is in UTF-16; save it as UTF-8")
    if start.startswith(GZIP):
        raise UsageError(f"{address} was packed twice; unpack it once")
    if kind.endswith(CSV):
        return _open_csv(address, path, asked, is_packed)
    return _open_json_lines(address, path, asked) if kind.endswith(JSON_LINES) else _open_lines(address, path, asked)


@contextmanager
def _opened(address: str, path: str) -> Iterator[BufferedIOBase]:
    """Open a file for its text; what is done with it raises UsageError where it cannot be unpacked."""
    try:
        with unpacked(path) as file:
            yield file
    except gzip.BadGzipFile as error:
        raise _refused(address, error) from None


def _refused(address: str, error: gzip.BadGzipFile) -> UsageError:
    cure = "" if isinstance(error, UnpacksToMore) else "; copy it, or pack it again"
    return UsageError(f"cannot unpack {address}: {error}{cure}")


def _native(path: str, is_packed: bool) -> pa.NativeFile:
    """Return what Arrow's threads read without Python: of a file of Python's they may die (pyarrow 26)."""
    return pa.input_stream(path, compression="gzip" if is_packed else None)


def _lines(address: str, path: str) -> Generator[tuple[int, str], None, None]:
    """Yield number and text of each line that is not blank, without its end."""
    most = raised(MAX_LINE_BYTES)
    with _opened(address, path) as file:
        for number in range(1, 2**63):
            line = file.readline(most + 1)
            if not line:
                return
            if len(line) > most:
                raise UsageError(
                    f"line {number} of {address} has more than {most} bytes; is it such a list? Shorten it, {RAISE}"
                )
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                raise UsageError(f"line {number} of {address} is not in UTF-8; save it as UTF-8") from None
            if text.strip():
                yield number, text


def _batched(rows: Iterator[Sequence[Any]], taken: Taken) -> Iterator[pa.RecordBatch]:
    """Yield rows of Python's values, of the columns of `taken`, in batches."""
    schema = taken.schema
    while held := list(islice(rows, ROWS_PER_BATCH)):
        columns = [pa.array(values, kind) for values, kind in zip(zip(*held, strict=True), schema.types, strict=True)]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


# Plain lines.


def _open_lines(address: str, path: str, asked: Asked) -> Opened:
    if asked.columns or asked.keep:
        raise UsageError(f"{address} is a list of a path or URI a line and has no columns; make it a CSV with a header")
    with closing(_lines(address, path)) as lines:
        first = next(lines, (0, ""))[1].partition("\r")[0]
    for sign in DELIMITERS:
        try:
            cells = cells_of(first, sign)
        except ValueError as error:
            raise UsageError(f"cannot read {address}: {error}") from None
        if len(cells) > 1 and column_of([*dict.fromkeys(cells)], ["uri", "image_id", "file_name", "label"]):
            raise UsageError(f"the first line of {address} has the names of columns, {shown(first)}; call it .csv")
    if PATH_AND_LABEL.fullmatch(first):
        raise UsageError(
            f"expected a path or URI a line in {address}, its first line is {shown(first)}; if that is a path and a "
            "label, make it a CSV with the first line uri,label"
        )
    taken = taken_of(pa.schema([("uri", pa.string())]), roles_of(["uri"], {}, (), address), (), address)
    return Opened(taken=taken, batches=_batched(_plain_rows(address, path), taken))


def _plain_rows(address: str, path: str) -> Iterator[list[str]]:
    for number, line in _lines(address, path):
        if "\r" in line:
            raise UsageError(f"line {number} of {address} has CR alone as the end of lines; save it with LF")
        yield [line]


# JSON lines.


def _open_json_lines(address: str, path: str, asked: Asked) -> Opened:
    kinds = _survey(address, path)
    roles = roles_of(list(kinds), asked.columns, asked.keep, address)
    named = zip(asked.keep, roles.kept, strict=True)
    kept = pa.schema([(name, _kind_of(address, theirs, kinds[theirs])) for name, theirs in named])
    taken = Taken(
        columns=used_of(roles),
        kept=kept,
        sources=roles.kept,
        class_names=(),
        where=address,
        others=roles.others,
        beside=roles.beside,
    )
    return Opened(taken=taken, batches=_batched(_json_rows(address, path, taken), taken), label_hint=roles.label_hint)


def _json_rows(address: str, path: str, taken: Taken) -> Iterator[list[Any]]:
    texts = ((name, LABELS if ours == "label" else pa.string()) for ours, name in taken.columns)
    wanted = [*texts, *zip(taken.sources, taken.kept.types, strict=True)]
    label_column = dict(taken.columns).get("label", "")
    for number, values in _objects(address, path):
        try:
            row = [_as(values.get(name), kind) for name, kind in wanted]
        except (ValueError, OverflowError) as error:
            raise UsageError(f"line {number} of {address}: {error}") from None
        for name in taken.others:
            label, word = values.get(label_column), values.get(name)
            if label is not None and isinstance(word, str):
                taken.beside.note(str(label), name, word, f"{address} line {number}")
        yield row


def _survey(address: str, path: str) -> dict[str, set[type]]:
    """Read all objects once for their names, each with the kinds of its values: what one lacks another may have."""
    kinds: dict[str, set[type]] = {}
    for number, values in _objects(address, path):
        for name, value in values.items():
            kinds.setdefault(name, set()).add(type(value))
        if len(kinds) > (most := raised(MAX_COLUMNS)):
            raise UsageError(
                f"the objects of {address} have more than {most} names by line {number}; leave some out, {RAISE}"
            )
    return kinds


def _objects(address: str, path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    decoder = json.JSONDecoder(object_pairs_hook=_once)  # `loads` would make one a line
    for number, line in _lines(address, path):
        try:
            values = decoder.decode(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"expected a JSON object in line {number} of {address}: {error}") from None
        if not isinstance(values, dict):
            raise UsageError(f"expected a JSON object in line {number} of {address}, it is {shown(line)}")
        yield number, values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("an object has a name twice")
    return values


def _as(value: Any, kind: pa.DataType) -> Any:
    """Return a value as one of a type, as which it can be stored; numbers may stand for texts. Raises ValueError."""
    if value is None:
        return None
    if kind == LABELS and isinstance(value, list):
        return AND.join(_as(word, pa.string()) for word in value if word is not None)
    if kind == LABELS or pa.types.is_string(kind):
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"expected a text or a number, it has {shown(json.dumps(value))}")
        text = str(value)
        text.encode()
        return text
    if pa.types.is_int64(kind) and not -(2**63) <= value < 2**63:
        raise ValueError(f"the number {shown(str(value))} is too large")
    return float(value) if pa.types.is_float64(kind) else value


def _kind_of(address: str, name: str, kinds: set[type]) -> pa.DataType:
    """Return the type of a further column, whose values are of one kind; numbers are whole where all of them are."""
    kinds = kinds - {type(None)}
    if kinds == {int, float}:
        return pa.float64()
    if len(kinds) > 1 or not kinds <= set(KINDS):
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise UsageError(
            f"--keep-columns {name}: texts, numbers and true or false are carried along, of one kind in all rows; "
            f"{address} has {found}"
        )
    return KINDS[kinds.pop()] if kinds else pa.string()


# CSV.


def _open_csv(address: str, path: str, asked: Asked, is_packed: bool) -> Opened:
    """Open a CSV as RFC 4180 has it, in UTF-8, its cells separated by one of `DELIMITERS`.

    Not by DuckDB: version 2.0 refuses line breaks in quotes where lines end in CR LF, or, told of them, reads no row.
    """
    with closing(_lines(address, path)) as lines:
        header = next(lines, (0, ""))[1].partition("\r")[0]  # which may end lines alone
    try:
        sign = delimiter_of(header)
    except ValueError as error:
        raise UsageError(f"cannot read {address}: {error}") from None
    if sign not in header and ".tsv" in address.lower():
        sign = "\t"
    layout = {
        "read_options": pc_csv.ReadOptions(block_size=CSV_BLOCK_BYTES),
        "parse_options": pc_csv.ParseOptions(delimiter=sign, newlines_in_values=True),
    }
    with pc_csv.open_csv(_native(path, is_packed), **layout) as reader:
        found = list(reader.schema.names)
    roles = roles_of(found, asked.columns, asked.keep, address)
    taken = taken_of(pa.schema([(name, pa.string()) for name in found]), roles, asked.keep, address)
    kinds = dict.fromkeys(taken.others, pa.binary()) | dict.fromkeys(taken.texts, pa.string())
    convert = pc_csv.ConvertOptions(include_columns=taken.needed, column_types=kinds)

    def batches() -> Iterator[pa.RecordBatch]:
        with pc_csv.open_csv(_native(path, is_packed), **layout, convert_options=convert) as reader:
            for batch in reader:
                taken_batch = taken.of(batch)
                kept = [
                    pc.if_else(pc.equal(taken_batch[name], ""), None, taken_batch[name]) for name in taken.kept.names
                ]
                columns = [*taken_batch.columns[: len(taken.columns)], *kept]
                yield pa.RecordBatch.from_arrays(columns, schema=taken.schema)

    return Opened(taken=taken, batches=batches(), label_hint=roles.label_hint)
