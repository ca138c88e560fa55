"""A manifest: the images that a table names, tens of millions of them in constant memory; or holds itself.

Columns are `uri`, and as the author likes `image_id` (unique; by default the uri as written) and `label`; others are
left out, but for those that --keep-columns names. A uri is an absolute path, a file:// URI, an s3:// or gs:// address,
or a path relative to the manifest's own folder. pyarrow reads the table as a stream, from a local copy if it is on an
object store; `cluster.sources.sorting` sorts it. `cluster.sources.tables` says which tables there are.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cam_ops.errors import BadImage, CamrayError, StorageError, UsageError
from cam_ops.tables import LISTING
from cluster.process.console import public, shown
from cluster.sources.folders.folder import check_folder
from cluster.sources.folders.patterns import fixed_part
from cluster.sources.listing import Listing, Remarks, remark, say_remarks
from cluster.sources.sorting import ROWS_PER_BATCH, first_line, sort_rows
from cluster.sources.source import EVERYTHING, Asked, OwnLabels, Source
from cluster.sources.tables.files import (
    ARROW,
    SPLITS,
    STATE,
    TableFile,
    addresses_of,
    files_of,
    is_pattern,
    is_table_file,
    is_table_folder,
    split_pattern,
)
from cluster.sources.tables.lists import SUFFIXES, Opened, open_list
from cluster.sources.tables.pictures import open_pictures, open_table
from cluster.sources.tables.roles import Roles, check_columns, features_of, holders_of, roles_of
from cluster.sources.tables.values import Taken, address_of, taken_of
from cluster.storage.objects import BUCKET, download, is_store, object_version
from cluster.storage.options import StorageOptions
from cluster.storage.parquet import stream
from cluster.storage.scratch import MEMORY_LIMIT

SUPPORTED = rf"^(file:///|(s3|gs)://{BUCKET.pattern}/)"
WINDOWS = r"\\|^[A-Za-z]:/"
DRIVE = r"[A-Za-z]:[\\/]|\\\\"
PACKED_OTHERWISE = tuple(f"{suffix}{packed}" for suffix in SUFFIXES for packed in (".bz2", ".xz", ".zst", ".zip"))
ALMOST: dict[tuple[str, ...], str] = {
    (".parquet.gz", ".arrow.gz"): "a table in Parquet or Arrow is packed inside; unpack it from gzip",
    PACKED_OTHERWISE: "of packed lists those in gzip's format are read; pack it so, or unpack it",
    (".json",): "a JSON document is no list; write an object a line, FILE.jsonl; labels and boxes go to --labels and "
    "--truth",
    (".xlsx", ".xls", ".ods"): "a spreadsheet is no list; save it as CSV in UTF-8",
    (".pkl", ".pickle", ".npy", ".npz"): "Python's own formats are not read, as those of others may run code; write "
    "picture files, or a Parquet file with a column of their bytes",
}
BACKSLASHES = "uris have backslashes where no such file is: they are taken as /"


def is_manifest(address: str) -> bool:
    """Say whether an absolute path or an address means a manifest, by its suffix; it need not exist any more.

    Of local folders those that hold Parquet files, or a saved dataset, are manifests, too.
    """
    if not is_store(address) and os.path.isdir(address):
        return is_table_folder(address)
    return address.lower().endswith(SUFFIXES) or is_table_file(address)


@contextmanager
def open_manifest(address: str, asked: Asked = EVERYTHING, memory_limit: str = MEMORY_LIMIT) -> Iterator[Listing]:
    """List the images of a manifest, the first `asked.limit` of them by id; the listing ends with the context.

    Raises UsageError for a file that is no manifest, a row without uri or id, an id that is there twice, and a uri that
    is no file; StorageError for a manifest that cannot be reached or is empty, and where there is no room to sort.
    """
    if address.lower().endswith(SUFFIXES):
        with _sorted(address, partial(_open_list, address, asked), asked, memory_limit) as listing:
            yield listing
        return
    files = files_of(address, asked.options, asked.skip)
    with open_table(files[0].address, asked.options) as table:
        found = [*table.schema.names, *(name for name in files[0].constant if name not in table.schema.names)]
        holders, features = holders_of(table.schema), features_of(table.schema)
        roles = roles_of(found, asked.columns, asked.keep, files[0].address, holders, features)
    if roles.image is None:
        opened = _sorted(address, partial(_open_tables, files, roles, asked), asked, memory_limit)
    else:
        opened = open_pictures(files, roles, asked)
    with opened as listing:
        yield listing


@contextmanager
def _sorted(address: str, open_rows: Callable[[str], Opened], asked: Asked, memory_limit: str) -> Iterator[Listing]:
    """List the images that rows name; `open_rows` is given a folder for files that go when the listing ends."""
    with TemporaryDirectory(prefix="camray-") as scratch:
        ordered = Path(scratch, "sorted.parquet")
        folder = _folder_of(address)
        slashes = _Slashes(folder, asked.options)
        failures: list[CamrayError] = []
        try:
            rows = open_rows(scratch)
            schema = rows.taken.schema
            reader = pa.RecordBatchReader.from_batches(schema, _noted(map(slashes.taken, rows.batches), failures))
            sort_rows(reader, _id_column(schema), ordered, asked.limit, scratch, memory_limit)
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise (failures[0] if failures else _refusal(address, scratch, error)) from None
        slashes.say()
        num_images = _check(address, ordered)
        yield Listing(
            num_images=num_images,
            has_labels="label" in schema.names,
            label_hint=rows.label_hint,
            class_names=rows.taken.class_names,
            kept=rows.taken.kept,
            beside=rows.taken.beside,
            batches=partial(_batches, ordered, folder, rows.taken.kept),
        )


def _noted(batches: Iterable[pa.RecordBatch], failures: list[CamrayError]) -> Iterator[pa.RecordBatch]:
    """Yield batches, and note what they raise, of which DuckDB keeps no more than the text."""
    try:
        yield from batches
    except CamrayError as error:
        failures.append(error)
        raise


def _open_list(address: str, asked: Asked, scratch: str) -> Opened:
    path = _fetched(address, scratch, asked.options) if is_store(address) else address
    if not os.stat(path).st_size:
        raise StorageError(f"the manifest {address} is empty; check --images")
    return open_list(address, path, asked)


def _open_tables(files: Sequence[TableFile], roles: Roles, asked: Asked, scratch: str) -> Opened:
    def batches() -> Iterator[pa.RecordBatch]:
        for file in files:
            with open_table(file.address, asked.options) as table:
                part = _taken(table.schema, file)
                if not part.kept.equals(taken.kept):
                    raise UsageError(
                        f"{file.address} has other types of columns than {files[0].address}; write them alike"
                    )
                yield from map(part.of, table.batches(part.needed))

    def _taken(schema: pa.Schema, file: TableFile) -> Taken:
        check_columns(schema, roles, file.address, file.constant)
        return taken_of(schema, roles, asked.keep, file.address, file.constant)

    with open_table(files[0].address, asked.options) as first:
        taken = _taken(first.schema, files[0])
    return Opened(taken=taken, batches=batches(), label_hint=roles.label_hint)


class _Slashes:
    """Takes backslashes in uris, as Windows writes them, for what they mean: `/` where no file bears the very name."""

    def __init__(self, folder: str, options: StorageOptions) -> None:
        self.folder, self.options = folder, options
        self.is_literal: bool | None = None  # of names on a store: as of the first one that has any
        self.remarks: Remarks = {}

    def taken(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch with such uris replaced. Raises UsageError for a path with a drive."""
        at = batch.schema.get_field_index("uri")
        found = pc.fill_null(pc.match_substring_regex(batch["uri"], WINDOWS), False)
        if not pc.any(found).as_py():
            return batch
        uris = [
            self._plain(uri) if is_one else uri
            for uri, is_one in zip(batch["uri"].to_pylist(), found.to_pylist(), strict=True)
        ]
        return batch.set_column(at, batch.schema.field(at), pa.array(uris, pa.string()))

    def _plain(self, uri: str) -> str:
        if uri.startswith(("file:", "s3:", "gs:")) or self._exists(uri):
            return uri
        if re.match(DRIVE, uri):
            raise UsageError(
                f"the manifest names {shown(uri)}, a path of another machine; write paths as they are here"
            )
        remark(self.remarks, BACKSLASHES, shown(uri))
        return uri.replace("\\", "/")

    def _exists(self, uri: str) -> bool:
        address = address_of(uri, self.folder)
        if not is_store(address):
            return os.path.lexists(address)
        if self.is_literal is None:
            self.is_literal = object_version(address, self.options) is not None
        return self.is_literal

    def say(self) -> None:
        """Say how many there were."""
        say_remarks("manifest", self.remarks)


def _fetched(address: str, scratch: str, options: StorageOptions) -> str:
    path = Path(scratch, "manifest")
    try:
        if not download(address, path, options):
            raise StorageError(f"there is no manifest at {address}; check --images")
    except BadImage as bad:
        raise StorageError(f"cannot read the manifest {address}: {bad}") from None
    except OSError as error:
        raise StorageError(
            f"cannot copy the manifest {address} to {scratch}: {error.strerror}; set TMPDIR to a folder with room"
        ) from None
    return str(path)


def _folder_of(address: str) -> str:
    """Return the folder that uris are relative to: a table's own, or the one that holds all of its files."""
    is_folder = not is_store(address) and os.path.isdir(address)
    folder = address if is_folder else os.path.dirname(address)
    if is_table_file(address) and is_pattern(address):
        folder, _ = split_pattern(address)
    try:
        folder.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the folder of a manifest needs a name in UTF-8, {folder!r} is not") from None
    return folder


def _refusal(address: str, scratch: str, error: Exception) -> CamrayError:
    """Say whose fault it is that a manifest cannot be read and sorted."""
    reason = first_line(error)
    if isinstance(error, duckdb.OutOfMemoryException | duckdb.IOException):
        return StorageError(
            f"cannot sort the manifest {address} in {scratch}: {reason}; set TMPDIR to a folder with room; "
            "where memory lacks, shorten the uris"
        )
    if isinstance(error, OSError) and error.errno is not None:
        where = os.uname().nodename
        return StorageError(f"cannot read the manifest {address} on {where}: {error.strerror}; check --images")
    if "invalid UTF8" in reason:
        return UsageError(f"expected {address} in UTF-8, a cell of it is not; save it as UTF-8")
    return UsageError(f"cannot read {address}, which its name says is a manifest: {reason}")


def _id_column(schema: pa.Schema) -> str:
    return "image_id" if "image_id" in schema.names else "uri"


def _check(address: str, ordered: Path) -> int:
    """Count the rows; raise UsageError for the first that cannot be planned."""
    num_rows, last_id = 0, None
    with pq.ParquetFile(ordered) as file:
        id_column = _id_column(file.schema_arrow)
        for batch in stream(file, ROWS_PER_BATCH, ["uri", id_column]):
            for name in ("uri", id_column):
                at = pc.index(pc.coalesce(pc.equal(batch[name], ""), True), True).as_py()
                if at >= 0:
                    other = batch["uri" if name != "uri" else id_column][at].as_py()
                    row = f"that of {shown(other)}" if other else "at least one"
                    raise UsageError(f"expected a text in column {name} for each row of {address}, {row} has none")
            _check_scheme(batch["uri"])
            ids = pa.chunked_array([pa.array([last_id], pa.string()), batch[id_column]]).combine_chunks()
            at = pc.index(pc.equal(ids[1:], ids[:-1]), True).as_py()
            if at >= 0:
                raise UsageError(
                    f"expected each {id_column} once in {address}, {shown(ids[at].as_py())} is there twice; "
                    "take one of them out" + ("" if id_column == "image_id" else ", or add a column image_id")
                )
            num_rows, last_id = num_rows + len(batch), ids[-1].as_py()
    if not num_rows:
        raise StorageError(f"the manifest {address} lists no image; check --images")
    return num_rows


def _check_scheme(uris: pa.Array) -> None:
    other = pc.and_not(
        pc.match_substring_regex(uris, "^[A-Za-z][A-Za-z0-9+.-]*://"), pc.match_substring_regex(uris, SUPPORTED)
    )
    at = pc.index(other, True).as_py()
    if at >= 0:
        raise UsageError(
            f"the manifest names {shown(public(uris[at].as_py()))}: addresses other than paths, "
            "file:///..., s3://BUCKET/KEY and gs://BUCKET/KEY are not supported"
        )


def _batches(ordered: Path, folder: str, kept: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield batches as `Listing` has them."""
    with pq.ParquetFile(ordered) as file:
        id_column = _id_column(file.schema_arrow)
        label = [pa.field("label", pa.string())] if "label" in file.schema_arrow.names else []
        schema = pa.schema([*LISTING, *label, *kept])
        for batch in stream(file, ROWS_PER_BATCH):
            uris = batch["uri"]
            is_whole = pc.or_(pc.starts_with(uris, "/"), pc.match_substring_regex(uris, SUPPORTED))
            addresses = pc.if_else(is_whole, uris, pc.binary_join_element_wise(folder, uris, os.sep))
            zeros_N = np.zeros(len(batch), np.int64)
            own = [batch[id_column], addresses, pa.array(zeros_N), pa.array(zeros_N - 1)]
            further = [batch[field.name].cast(field.type) for field in [*label, *kept]]
            yield pa.record_batch([*own, *further], schema=schema)


def _check_reached(address: str, options: StorageOptions) -> None:
    """Check the folder of files that hold pictures as ranges of bytes; for lists the plan stands."""
    is_held = address.lower().endswith(ARROW) or os.path.basename(address) in (STATE, SPLITS)
    if is_held and not is_store(address):
        check_folder(fixed_part(os.path.dirname(address)) or "/")


def _why_not(text: str) -> str:
    """Say why what the user gave is almost a manifest, but none that can be read."""
    name = text.lower().rstrip("/")
    if not is_store(text) and os.path.isdir(text):
        return ""
    for suffixes, why in ALMOST.items():
        if name.endswith(suffixes) and not name.endswith((STATE, SPLITS)):
            return why
    return ""


MANIFEST = Source(
    means=is_manifest,
    check=_check_reached,
    open=open_manifest,
    columns=frozenset(("uri", "image", "image_id", "label")),
    takes_wildcards=is_table_file,
    files=addresses_of,
    called="a manifest, which names pictures in its column uri or holds them: FILE.csv, .tsv, .jsonl, .txt, also .gz; "
    "FILE.parquet, .arrow, or a folder of such",
    own_labels=OwnLabels(
        word="manifest",
        needed="FILE.parquet, FILE.csv or another table",
        place="column label",
        subject="the manifest's column label is",
        names_image="image_id",
    ),
    inside="a table, --images {file}, or several by '{folder}/*.parquet'",
    refusal=_why_not,
)
