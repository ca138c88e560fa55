"""What a listing takes of a table's columns: ids, addresses and labels as texts, further columns as they are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from cam_ops.errors import UsageError
from cluster.process.console import shown
from cluster.sources.beside import Beside
from cluster.sources.listing import AND
from cluster.sources.tables.roles import Roles

NOTHING: Mapping[str, str | None] = {}
UNKNOWN = -1  # the number of the class of a picture that has none, in Hugging Face's datasets
IS_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
IS_KEPT: tuple[Callable[[pa.DataType], bool], ...] = (
    *(pa.types.is_integer, pa.types.is_float32, pa.types.is_float64, pa.types.is_boolean),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a listing takes of tables that share their columns, under the names that it has there."""

    columns: tuple[tuple[str, str], ...]  # our name, the table's: uri, image_id, label, as far as there are
    kept: pa.Schema  # further columns by the names that --keep-columns gives
    sources: tuple[str, ...]  # the table's names for these
    class_names: tuple[str, ...]
    where: str
    constant: Mapping[str, str | None] = field(default_factory=dict)  # columns that stand in the names of folders
    others: tuple[str, ...] = ()  # texts that may name the class, too, of which `beside` takes note
    beside: Beside = field(default_factory=Beside)

    @property
    def needed(self) -> list[str]:
        """The table's own columns that are read."""
        return [name for name in dict.fromkeys([*self.texts, *self.others]) if name not in self.constant]

    @property
    def texts(self) -> list[str]:
        """The table's columns of which values are taken."""
        return [*(theirs for _, theirs in self.columns), *self.sources]

    @property
    def schema(self) -> pa.Schema:
        """The columns of what is taken."""
        return pa.schema([*(pa.field(ours, pa.string()) for ours, _ in self.columns), *self.kept])

    def of(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Take it of a batch that has the columns `needed`. Raises UsageError, and what Arrow says of bad texts."""
        columns = [self._text(ours, self._column(batch, theirs)) for ours, theirs in self.columns]
        for source, kept in zip(self.sources, self.kept, strict=True):
            columns.append(_plain(self._column(batch, source)).cast(kept.type))
        taken = pa.RecordBatch.from_arrays(columns, schema=self.schema)
        taken.validate(full=True)  # UTF-8
        for name in self.others:
            words = _plain(self._column(batch, name))
            self.beside.note_all(taken["label"], name, words.cast(pa.binary()), self.where)
        return taken

    def _column(self, batch: pa.RecordBatch, name: str) -> pa.Array:
        if name in self.constant:
            return pa.repeat(pa.scalar(self.constant[name], pa.string()), len(batch))
        return batch.column(batch.schema.names.index(name))

    def _text(self, ours: str, column: pa.Array) -> pa.Array:
        column = _plain(column)
        if _is_list(column.type):
            words = self._text(ours, column.flatten()).to_pylist()
            rows = zip(column.is_valid().to_pylist(), _lengths(column), strict=True)
            each = iter(words)
            return pa.array(
                [AND.join(word for word in islice(each, length) if word) if valid else None for valid, length in rows],
                pa.string(),
            )
        if ours == "label" and self.class_names and pa.types.is_integer(column.type):
            return self._named(column)
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_nan(column), None, column)
        return column.cast(pa.string())

    def _named(self, column: pa.Array) -> pa.Array:
        """Return the names that the table has for its numbers of classes."""
        column = pc.if_else(pc.equal(column.cast(pa.int64()), UNKNOWN), None, column.cast(pa.int64()))
        wrong = pc.or_(pc.less(column, 0), pc.greater_equal(column, len(self.class_names)))
        if (at := pc.index(wrong, True).as_py()) >= 0:
            raise UsageError(
                f"{self.where} has the label {column[at].as_py()}, its metadata name {len(self.class_names)} classes"
            )
        return pa.array(self.class_names, pa.string()).take(column)


def taken_of(
    schema: pa.Schema, roles: Roles, names: tuple[str, ...], where: str, constant: Mapping[str, str | None] = NOTHING
) -> Taken:
    """Say what is taken of a table with this schema; `names` are those that --keep-columns gives, in its order.

    `constant` are its folder's columns. Raises UsageError for columns of other types.
    """
    used = used_of(roles)
    for ours, theirs in used:
        _check_source(schema, theirs, constant, where)
        kind = pa.string() if theirs in constant else _value_type(schema.field(theirs).type)
        kind = _value_type(kind.value_type) if ours == "label" and _is_list(kind) else kind
        is_float = ours == "label" and pa.types.is_floating(kind)  # of numbers beside empty cells
        if not (is_float or pa.types.is_integer(kind) or pa.types.is_null(kind) or any(is_(kind) for is_ in IS_TEXT)):
            raise UsageError(f"expected texts or whole numbers in column {theirs} of {where}, it holds {kind}")
    fields = []
    for name, theirs in zip(names, roles.kept, strict=True):
        _check_source(schema, theirs, constant, where)
        fields.append(pa.field(name, pa.string() if theirs in constant else _kept_type(schema, theirs, where)))
    return Taken(
        columns=used,
        kept=pa.schema(fields),
        sources=roles.kept,
        class_names=roles.class_names,
        where=where,
        constant=constant,
        others=tuple(name for name in roles.others if name in constant or _is_text(schema, name)),
        beside=roles.beside,
    )


def used_of(roles: Roles) -> tuple[tuple[str, str], ...]:
    """Return our name and the table's for each column that becomes one of a listing's own."""
    columns = (("uri", roles.uri), ("image_id", roles.image_id), ("label", roles.label))
    return tuple((ours, theirs) for ours, theirs in columns if theirs is not None)


def _check_source(schema: pa.Schema, name: str, constant: Mapping[str, str | None], where: str) -> None:
    if name in constant and name in schema.names:
        raise UsageError(f"{where} has a column {shown(name)}, and its folder's name another one; rename one of them")


def _is_text(schema: pa.Schema, name: str) -> bool:
    """Say whether a table has a column of that name alone, of texts."""
    return schema.names.count(name) == 1 and any(is_(_value_type(schema.field(name).type)) for is_ in IS_TEXT)


def _kept_type(schema: pa.Schema, name: str, where: str) -> pa.DataType:
    kind = _value_type(schema.field(name).type)
    if pa.types.is_null(kind) or any(is_(kind) for is_ in IS_TEXT):
        return pa.string()
    if pa.types.is_float16(kind):  # which many readers cannot read
        return pa.float32()
    if not any(is_(kind) for is_ in IS_KEPT):
        raise UsageError(
            f"--keep-columns {name}: texts, numbers and true or false are carried along, {where} has {kind} there"
        )
    return kind


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _lengths(column: pa.Array) -> list[int]:
    """Return how many values each list has, none where there is no list."""
    return [length or 0 for length in pc.list_value_length(column).to_pylist()]


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _plain(column: pa.Array) -> pa.Array:
    """Return a column of values as one of the values themselves."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def is_address(path: str) -> bool:
    """Say whether a path says where a file is whatever folder names it."""
    return path.startswith(("/", "file:///", "s3://", "gs://"))


def address_of(path: str, folder: str) -> str:
    """Return where a file is that something in a folder names."""
    return path if is_address(path) else f"{folder}/{path}"
