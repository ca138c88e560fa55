"""Names of pictures' files: an image's id, unless that leads elsewhere, breaks a line, or meets another's.

Such a name gets a mark that is made of the id, so that no two are equal: `../1.jpg` becomes
`__/1~69c4be62092ccf6652c4.jpg`.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from cam_ops.arrays import I64
from cam_ops.errors import StorageError
from cam_ops.pictures.formats import format_named, suffix_of
from cluster.formats.exported import split_suffix
from cluster.runs.directory import RunDir
from cluster.runs.plan import read_shard
from cluster.runs.record import Run
from cluster.storage.scratch import load, open_database

MAX_PART_BYTES = 150  # of a folder or file: file systems take 255, of which suffixes and scratch names need some
MAX_NAME_BYTES = 900
MAX_MARKED = 10**6
MARK_DIGITS = 20  # so many that nobody finds two ids of one mark
MARKED = re.compile(rf"~[0-9a-f]{{{MARK_DIGITS}}}$", re.IGNORECASE)
UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069\ufffe\uffff\\\\]")
OF_FILES = frozenset({"txt", "xml", "json", "npy"})  # suffixes of what is written by picture, besides pictures
DRIVE = re.compile("^([A-Za-z]):")  # of Windows, where such a name leads elsewhere
KEYS = pa.schema([pa.field("key", pa.int64()), pa.field("place", pa.int64())])


def file_name(
    image_id: str, reserved: frozenset[str] = frozenset(), *, must_mark: bool = False, is_file: bool = True
) -> str:
    """Return the name of an image's file, a relative path; `reserved` are names that none of its parts may have.

    Where no file of that name `is_file` of the export, it may be as long as it is, below folders of any name.
    """
    *folders, last = (_fit(part, reserved) for part in image_id.split("/"))
    if is_file:
        *folders, last = *map(_folder, map(_short, folders)), _short(last)
    name = "/".join([*folders, last])
    if is_file and len(name.encode()) > MAX_NAME_BYTES:
        name = name.rpartition("/")[2]
    stem, suffix = split_suffix(name)
    if name == image_id and stem == stem.strip() and not must_mark and not MARKED.search(stem):
        return name
    mark = hashlib.sha256(image_id.encode("utf-8", "surrogatepass")).hexdigest()[:MARK_DIGITS]
    return f"{stem}~{mark}{suffix}"


def _folder(part: str) -> str:
    """Return the name of a folder, which must not be that of a file: that of `a.jpg` beside `a.jpg/1.png`."""
    suffix = suffix_of(part)
    return f"{part}_" if format_named(suffix) or suffix in OF_FILES else part


def _fit(part: str, reserved: frozenset[str]) -> str:
    part = DRIVE.sub(r"\1_", UNFIT.sub("_", part))
    if part != part.strip() or not part.strip("."):
        part = part.strip() if part.strip(". ") else "_" * max(1, len(part))
    if part.casefold() in reserved:
        part += "_"
    return part


def _short(part: str) -> str:
    if len(part.encode()) > MAX_PART_BYTES:
        stem, suffix = split_suffix(part)
        part = stem.encode()[: MAX_PART_BYTES - len(suffix)].decode("utf-8", "ignore") + suffix
    return part


def meeting(run_dir: RunDir, run: Run, reserved: frozenset[str]) -> I64:
    """Return the places in the plan of images whose names, without suffix, are those of others, too; rising.

    Capitals and Unicode forms do not tell names apart, as they do not on all file systems, nor do dots, nor a second
    suffix: readers may take `a.png` of `a.png.jpg` for that of a picture.
    """
    with open_database() as database:
        load(database, "keys", KEYS, _keys(run_dir, run, reserved))
        query = "SELECT unnest(list(place)) AS place FROM keys GROUP BY key HAVING count(*) > 1 ORDER BY place"
        found = database.sql(query).to_arrow_table()["place"]
    if len(found) > MAX_MARKED:
        raise StorageError(
            f"{len(found)} images have a name, but for suffix and capitals, that another has, too; at most "
            f"{MAX_MARKED} are renamed: export parts of the run, or --pictures none to a format of one file"
        )
    return np.asarray(found.to_numpy(), np.int64)


def _keys(run_dir: RunDir, run: Run, reserved: frozenset[str]) -> Iterator[pa.RecordBatch]:
    for shard in range(run.plan.num_shards):
        ids = read_shard(run_dir, shard)["image_id"].to_pylist()
        keys = np.array([_key(file_name(image_id, reserved)) for image_id in ids], np.int64)
        places = np.arange(len(ids), dtype=np.int64) + shard * run.plan.shard_size
        yield pa.record_batch([pa.array(keys), pa.array(places)], schema=KEYS)


def _key(name: str) -> int:
    stem, suffix = split_suffix(name)
    while suffix:
        stem, suffix = split_suffix(stem)
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFD", stem).casefold()).replace(".", "_")
    return int.from_bytes(hashlib.blake2b(folded.encode(), digest_size=8).digest(), "little", signed=True)
