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
from cam_ops.pictures.formats import suffix_of
from cluster.formats.exported import split_suffix
from cluster.runs.directory import RunDir
from cluster.runs.plan import read_shard
from cluster.runs.record import Run
from cluster.storage.scratch import load, open_database

MAX_PART_BYTES = 150  # of a folder or file: file systems take 255, of which suffixes and scratch names need some
MAX_NAME_BYTES = 900
MAX_MARKED = 10**6
MARK_DIGITS = 20  # of a hash: to find two ids of one mark costs more than it could gain
MARKED = re.compile(rf"~[0-9a-f]{{{MARK_DIGITS}}}$", re.IGNORECASE)
FILES = ("txt", "xml", "json", "npy")  # suffixes of files that lie beside pictures
UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
AS_ONE = str.maketrans(".,", "__")  # formats replace them where they would end a name
DRIVE = re.compile("^([A-Za-z]):")  # of Windows, where such a name leads elsewhere
KEYS = pa.schema([pa.field("key", pa.int64()), pa.field("place", pa.int64())])


def file_name(
    image_id: str, reserved: frozenset[str] = frozenset(), *, must_mark: bool = False, is_file: bool = True
) -> str:
    """Return the name of an image's file, a relative path; `reserved` are names that none of its parts may have.

    Where no file of that name `is_file` of the export, only what leads elsewhere or breaks a line is no name.
    """
    parts = [_plain(part) for part in image_id.split("/")]
    if is_file:
        *folders, last = (_fit(part, reserved) for part in parts)
        parts = [*map(_fit_folder, folders), last]
    name = "/".join(parts)
    if is_file and len(name.encode()) > MAX_NAME_BYTES:
        name = parts[-1]
    stem, suffix = split_suffix(name)
    is_fit = not is_file or stem == stem.strip()
    if name == image_id and is_fit and not must_mark and not MARKED.search(stem):
        return name
    mark = hashlib.sha256(image_id.encode("utf-8", "surrogatepass")).hexdigest()[:MARK_DIGITS]
    return f"{stem}~{mark}{suffix}"


def _plain(part: str) -> str:
    """Return a part of an id that neither leads elsewhere nor breaks a line."""
    part = UNFIT.sub("_", part)
    return part if part.strip().strip(".") else "_" * max(1, len(part.strip()))


def _fit(part: str, reserved: frozenset[str]) -> str:
    """Return a part that can name a file anywhere."""
    part = DRIVE.sub(r"\1_", part.replace("\\", "_").strip())
    if part.casefold() in reserved:
        part += "_"
    if len(part.encode()) > MAX_PART_BYTES:
        stem, suffix = split_suffix(part)
        part = stem.encode()[: MAX_PART_BYTES - len(suffix)].decode("utf-8", "ignore").rstrip() + suffix
    return part


def _fit_folder(part: str) -> str:
    """Return a folder's name that no file has: beside `a.jpg/1.jpg` there may be `a.jpg`, or its label `a.txt`."""
    return f"{part}_" if split_suffix(part)[1] or suffix_of(part) in FILES else part


def meeting(run_dir: RunDir, run: Run, reserved: frozenset[str]) -> I64:
    """Return the places in the plan of images whose names, without suffix, are those of others, too; rising.

    Capitals and Unicode forms do not tell names apart, as they do not on all file systems, nor do dots and commas,
    nor a second suffix: readers may take `a.png` of `a.png.jpg` for that of a picture.
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
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFD", stem).casefold()).translate(AS_ONE)
    return int.from_bytes(hashlib.blake2b(folded.encode(), digest_size=8).digest(), "little", signed=True)
