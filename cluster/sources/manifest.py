"""A manifest: the images that a Parquet or CSV file names, tens of millions of them in constant memory.

Columns are `uri`, and as the author likes `image_id` (unique; by default the uri as written) and `label`; others are
left out. A uri is an absolute path, a file:// URI, an s3:// or gs:// address, or a path relative to the manifest's own
folder. pyarrow reads the file as a stream, from a local copy if it is on an object store; `cluster.sources.sorting`
sorts it.
"""

import codecs
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

from cam_ops.errors import BadImage, CamrayError, StorageError, UsageError
from cam_ops.tables import LISTING
from cluster.process.console import shown
from cluster.sources.listing import Listing
from cluster.sources.sorting import ROWS_PER_BATCH, first_line, sort_rows
from cluster.sources.source import OwnLabels, Source
from cluster.storage.objects import BUCKET, download, is_store, without_credentials
from cluster.storage.options import NO_OPTIONS, StorageOptions
from cluster.storage.parquet import stream
from cluster.storage.scratch import MEMORY_LIMIT

SUFFIXES = (".parquet", ".csv")
COLUMNS = ("uri", "image_id", "label")
CSV_BLOCK_BYTES = 4 * 2**20  # and the longest row; a dozen blocks are read ahead
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
SUPPORTED = rf"^(file:///|(s3|gs)://{BUCKET.pattern}/)"


def is_manifest(address: str) -> bool:
    """Say whether an absolute path or an address means a manifest, by its suffix; it need not exist any more."""
    return address.lower().endswith(SUFFIXES) and (is_store(address) or not os.path.isdir(address))


@contextmanager
def open_manifest(
    address: str, limit: int | None, memory_limit: str = MEMORY_LIMIT, options: StorageOptions = NO_OPTIONS
) -> Iterator[Listing]:
    """List the images of a manifest, the first `limit` of them by id; the listing ends with the context.

    Raises UsageError for a file that is no manifest, a row without uri or id, an id that is there twice, and a uri that
    is no file; StorageError for a manifest that cannot be reached or is empty, and where there is no room to sort.
    """
    with TemporaryDirectory(prefix="camray-") as scratch:
        ordered = Path(scratch, "sorted.parquet")
        path = _fetched(address, scratch, options) if is_store(address) else address
        names = _sort(address, path, ordered, limit, scratch, memory_limit)
        batches = partial(_batches, ordered, _folder_of(address))
        num_images = _check(address, ordered)
        yield Listing(num_images=num_images, has_labels="label" in names, batches=batches)


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
    folder = os.path.dirname(address)
    try:
        folder.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the folder of a manifest needs a name in UTF-8, {folder!r} is not") from None
    return folder


def _sort(address: str, path: str, ordered: Path, limit: int | None, scratch: str, memory_limit: str) -> list[str]:
    """Write the manifest's columns as texts, sorted by id, to the Parquet file `ordered`; return their names."""
    try:
        with open(path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise StorageError(f"the manifest {address} is empty; check --images")
            if file.read(2) in UTF_16:
                raise UsageError(f"expected {address} in UTF-8, it is in UTF-16; save it as UTF-8")
        reader = _open_csv(address, path) if address.lower().endswith(".csv") else _open_parquet(address, path)
        sort_rows(reader, _id_column(reader.schema), ordered, limit, scratch, memory_limit)
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise _refusal(address, scratch, error) from None
    return list(reader.schema.names)


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
    return UsageError(f"cannot read {address}, which its name says is Parquet or CSV: {reason}")


def _open_parquet(address: str, path: str) -> pa.RecordBatchReader:
    file = pq.ParquetFile(path)
    names = _columns(address, file.schema_arrow.names)
    for name in names:
        kind = file.schema_arrow.field(name).type
        if not _is_text_or_number(kind):
            raise UsageError(f"expected texts or whole numbers in column {name} of {address}, it holds {kind}")
    schema = pa.schema([(name, pa.string()) for name in names])
    return pa.RecordBatchReader.from_batches(schema, _texts(file, schema))


def _texts(file: pq.ParquetFile, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in stream(file, ROWS_PER_BATCH, schema.names):
        texts = batch.select(schema.names).cast(schema)
        texts.validate(full=True)  # UTF-8
        yield texts


def _is_text_or_number(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    accepted: tuple[Callable[[pa.DataType], bool], ...] = (
        *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
        *(pa.types.is_integer, pa.types.is_null),
    )
    return any(is_kind(kind) for is_kind in accepted)


def _open_csv(address: str, path: str) -> pa.RecordBatchReader:
    """Open a CSV as RFC 4180 has it, in UTF-8, all columns texts.

    Not by DuckDB: version 2.0 refuses line breaks in quotes where lines end in CR LF, or, told of them, reads no row.
    """
    layout = {
        "read_options": pc_csv.ReadOptions(block_size=CSV_BLOCK_BYTES),
        "parse_options": pc_csv.ParseOptions(newlines_in_values=True),
    }
    with pc_csv.open_csv(path, **layout) as header:
        names = _columns(address, header.schema.names)
    texts = pc_csv.ConvertOptions(include_columns=names, column_types=dict.fromkeys(names, pa.string()))
    return pc_csv.open_csv(path, **layout, convert_options=texts)


def _columns(address: str, found: list[str]) -> list[str]:
    """Return those of our columns that the manifest has."""
    if found.count("uri") != 1 or any(found.count(name) > 1 for name in COLUMNS):
        raise UsageError(
            f"expected one column uri in {address}, and at most one image_id and label, found "
            f"{', '.join(shown(name) for name in found[:10])}"
        )
    return [name for name in COLUMNS if name in found]


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
            f"the manifest names {shown(without_credentials(uris[at].as_py()))}: addresses other than paths, "
            "file:///..., s3://BUCKET/KEY and gs://BUCKET/KEY are not supported"
        )


def _batches(ordered: Path, folder: str) -> Iterator[pa.RecordBatch]:
    """Yield batches as `Listing` has them."""
    with pq.ParquetFile(ordered) as file:
        has_labels = "label" in file.schema_arrow.names
        id_column = _id_column(file.schema_arrow)
        schema = LISTING.append(pa.field("label", pa.string())) if has_labels else LISTING
        for batch in stream(file, ROWS_PER_BATCH):
            uris = batch["uri"]
            is_whole = pc.or_(pc.starts_with(uris, "/"), pc.match_substring_regex(uris, SUPPORTED))
            addresses = pc.if_else(is_whole, uris, pc.binary_join_element_wise(folder, uris, os.sep))
            zeros_N = np.zeros(len(batch), np.int64)
            columns = [batch[id_column], addresses, pa.array(zeros_N), pa.array(zeros_N - 1)]
            yield pa.record_batch([*columns, batch["label"]] if has_labels else columns, schema=schema)


MANIFEST = Source(
    means=is_manifest,
    check=lambda address, options: None,  # the plan stands for it
    open=lambda address, asked: open_manifest(address, asked.limit, options=asked.options),
    own_labels=OwnLabels(
        word="manifest",
        needed="FILE.parquet or FILE.csv",
        place="column label",
        subject="the manifest's column label is",
        names_image="uri",
    ),
)
