"""The files that an address of tables means: one, those that fit a pattern, those of a folder or of a saved dataset.

Folders may be called `COLUMN=VALUE`, as Hive has them: each is then a column of the tables below it.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from urllib.parse import unquote

from cam_ops.documents import json_of
from cam_ops.errors import BadImage, StorageError, UsageError
from cam_ops.outside import RAISE, raised, size_of_file
from cluster.process.console import say, shown
from cluster.runs.names import RUN, plan_name
from cluster.sources.folders.folder import CYCLE, is_run, way_into
from cluster.sources.folders.names import is_named_as_picture
from cluster.sources.folders.patterns import WILDCARDS
from cluster.sources.listing import Remarks, image_id_of, remark, say_remarks
from cluster.storage.listings import list_objects
from cluster.storage.objects import is_plain, is_store, read_object
from cluster.storage.options import StorageOptions

PARQUET, ARROW = (".parquet", ".parq", ".pq"), (".arrow", ".feather")
TABLES = (*PARQUET, *ARROW)
STATE, SPLITS = "state.json", "dataset_dict.json"
MAX_DOCUMENT_BYTES = 16 * 2**20
PLAN = plan_name(0)
LOGS = ("_delta_log", ".hoodie")  # of Delta Lake and Hudi: files of rows that were removed lie beside the others
HIVE = re.compile(r"([^=/]+)=([^/]*)")
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
MAX_NAME_CHARACTERS = 255  # of a file: no file system has longer names
MAX_FOLDERS = 2000  # that are looked into to say what a folder is
HIDDEN = "tables whose name, or that of a folder on the way, begins with . or _ are left out"
OTHERS = "files beside the Parquet files are left out"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFile:
    """A file of tables."""

    name: str  # below the source
    address: str
    constant: dict[str, str | None] = field(default_factory=dict)  # what its folders' names say


def is_table_file(address: str) -> bool:
    """Say whether an address means Parquet or Arrow files, or a saved dataset, by its suffix."""
    is_file = address.lower().endswith(TABLES) or os.path.basename(address) in (STATE, SPLITS)
    return is_file and "/" in address.partition("://")[2 if is_store(address) else 0]


def is_table_folder(address: str) -> bool:
    """Say whether a local folder is a saved dataset, or holds Parquet files and no pictures.

    Of a tree the first level counts at which one or the other lies. A folder with both is one of pictures; where
    folders of both kinds lie side by side, `files_of` will ask.
    """
    if is_store(address):
        return False
    if any(os.path.isfile(f"{address}/{name}") for name in (STATE, SPLITS)):
        return True
    level, num_folders = [address], 0
    while level and num_folders < MAX_FOLDERS:
        num_folders += len(level)
        found = [_look_into(folder) for folder in level]
        if kinds := {kind for kind, _ in found if kind is not None}:
            return True in kinds
        level = [below for _, folders in found for below in folders]
    return False


def _look_into(folder: str) -> tuple[bool | None, list[str]]:
    """Say whether a folder itself has Parquet files and no pictures, None where it has neither; and its folders."""
    has_tables, folders = False, []
    if is_run(folder):
        return None, []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders.append(entry.path)
                elif is_named_as_picture(entry.name):
                    return False, []
                has_tables |= entry.name.lower().endswith(PARQUET) and entry.is_file()
    except OSError:
        return None, []  # who lists it will say
    return has_tables or None, folders


def files_of(address: str, options: StorageOptions, skip: str = "") -> list[TableFile]:
    """Return the files in the order of their images' ids, and say what is left out beside them.

    Files of runs are none of them, nor those below the address `skip`, which may be that of one that has hardly begun.
    Raises UsageError, and StorageError where there are none.
    """
    remarks: Remarks = {}
    files = _found(address, options, skip, remarks)
    say_remarks("--images", remarks)
    return files


def addresses_of(address: str, options: StorageOptions) -> list[str]:
    """Return where these files are, and say nothing."""
    return [file.address for file in _found(address, options, "", {})]


def _found(address: str, options: StorageOptions, skip: str, remarks: Remarks) -> list[TableFile]:
    base = os.path.basename(address)
    if base in (STATE, SPLITS):
        address = os.path.dirname(address)
        found = _saved(address, options)
    elif not is_pattern(address):
        if is_store(address) or not os.path.isdir(address):
            return [TableFile(name=base, address=address)]
        is_saved = any(os.path.exists(f"{address}/{name}") for name in (STATE, SPLITS))
        found = _saved(address, options) if is_saved else _folder(address, skip, remarks)
    else:
        address, pattern = split_pattern(address)
        found = [name for name in _names(address, options, skip, remarks) if _fits(name.split("/"), pattern)]
    files = [TableFile(name=n, address=f"{address}/{n}", constant=_constant(n, address)) for n in found]
    if not files:
        raise StorageError(f"expected files {', '.join(TABLES)} in {address}, found none; check --images")
    return sorted(files, key=lambda file: image_id_of(f"{file.name}/"))


def _exists(address: str) -> bool:
    return not is_store(address) and os.path.exists(address)


def _folder(address: str, skip: str, remarks: Remarks) -> list[str]:
    """Return the Parquet files of a folder; raise UsageError where pictures lie beside them."""
    names = list(_names(address, None, skip, remarks))
    for name in names:
        if not name.lower().endswith(PARQUET):
            remark(remarks, OTHERS, shown(f"{address}/{name}"))
    pictures = [name for name in names if is_named_as_picture(os.path.basename(name))]
    found = [name for name in names if name.lower().endswith(PARQUET)]
    if pictures:
        raise UsageError(
            f"{address} has {len(found)} Parquet files, such as {shown(found[0])}, and {len(pictures)} pictures, such "
            f"as {shown(pictures[0])}; say which are meant: give the folder of one kind alone, or "
            f"'{address}/{os.path.dirname(found[0]) or '.'}/*.parquet'"
        )
    return found


def _names(address: str, options: StorageOptions | None, skip: str, remarks: Remarks) -> Iterator[str]:
    """Yield the files below an address, but for hidden ones and those in folders that `_` begins, as Spark has them."""
    if options is not None and is_store(address):
        names: Iterable[str] = _listed(address, options, skip)
    else:
        names = _walk(address, skip, remarks)
    for name in names:
        parts = name.split("/")
        if parts[0] in LOGS:
            raise UsageError(
                f"{address} is a table of which {parts[0]} says which files count; write the rows that are meant to "
                "Parquet files of their own"
            )
        if not any(part.startswith((".", "_")) for part in parts):
            yield name
        elif name.lower().endswith(TABLES):
            remark(remarks, HIDDEN, shown(f"{address}/{name}"))


def _listed(address: str, options: StorageOptions, skip: str) -> list[str]:
    """Return the tables below an address on a store, and what tells of logs, but for the files of runs."""
    names: list[str] = []
    places: dict[str, set[str]] = {RUN: set(), PLAN: set()}
    for name, _ in list_objects(address, options):
        for mark, found in places.items():
            if name.endswith(f"/{mark}"):
                found.add(name.removesuffix(mark))
        if name.lower().endswith(TABLES) or name.partition("/")[0] in LOGS:
            names.append(name)
    runs = (*(places[RUN] & places[PLAN]), f"{skip.removeprefix(f'{address}/')}/")
    return [name for name in names if not name.startswith(runs)]


def _walk(address: str, skip: str, remarks: Remarks) -> Iterator[str]:
    """Yield the files below a folder; links to folders are followed, but for those that lead back to where they lie."""
    skip = skip and os.path.realpath(skip)
    here: tuple[str, ...] = (os.path.realpath(address),)  # the real folder, after those that links on the way lie in
    ways = {address: here}
    try:
        for folder, folders, names in os.walk(address, onerror=_raise, followlinks=True):
            way = ways.pop(folder)
            below = {name: os.path.join(folder, name) for name in sorted(folders)}
            folders.clear()
            for name, path in below.items():
                inner = way_into(way, path, os.path.islink(path))
                if not inner:
                    remark(remarks, CYCLE, shown(path))
                elif inner[-1] != skip and not is_run(path):
                    ways[path] = inner
                    folders.append(name)
            yield from (os.path.relpath(os.path.join(folder, name), address) for name in names)
    except OSError as error:
        raise StorageError(
            f"cannot list {error.filename} on {os.uname().nodename}: {error.strerror}; check --images"
        ) from None


def _raise(error: OSError) -> None:
    raise error


def is_pattern(address: str) -> bool:
    """Say whether an address of tables has wildcards, and is not the name of a file or folder."""
    return bool(WILDCARDS & set(address)) and not _exists(address)


def split_pattern(address: str) -> tuple[str, list[str]]:
    """Split an address with wildcards into the folder before them, and the parts of the pattern below it."""
    scheme, sign, path = address.rpartition("://")
    parts = path.split("/")
    first = next(i for i, part in enumerate(parts) if WILDCARDS & set(part))
    return scheme + sign + "/".join(parts[:first]), parts[first:]


def _fits(parts: list[str], pattern: list[str]) -> bool:
    """Say whether the parts of a path are those of a pattern, of which `**` stands for any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[i:], pattern[1:]) for i in range(len(parts)))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _constant(name: str, address: str) -> dict[str, str | None]:
    """Return the columns that the names of a file's folders are."""
    found = [HIVE.fullmatch(part) for part in name.split("/")[:-1]]
    return {unquote(m[1]): None if m[2] == HIVE_NULL else unquote(m[2]) for m in found if m}


def _saved(address: str, options: StorageOptions) -> list[str]:
    """Return the files of a dataset that `datasets` saved, or of a dictionary of them."""
    splits = _document(f"{address}/{SPLITS}", options)
    if splits is None:
        return _data_files(address, "", options)
    names = splits.get("splits")
    if not isinstance(names, list) or not names or not all(_is_name(name) for name in names):
        raise UsageError(f"expected names of folders in splits of {address}/{SPLITS}; save the dataset again")
    say(f"splits of {address}, of which all are taken: {', '.join(map(shown, names))}")
    return [name for split in names for name in _data_files(address, f"{split}/", options)]


def _data_files(address: str, prefix: str, options: StorageOptions) -> list[str]:
    where = f"{address}/{prefix}{STATE}"
    state = _document(where, options)
    if state is None:
        raise StorageError(f"there is no {where}, which says what a saved dataset consists of; check --images")
    files = state.get("_data_files")
    names = (
        [file.get("filename") if isinstance(file, dict) else None for file in files] if isinstance(files, list) else []
    )
    if not names or not all(_is_name(name) for name in names):
        raise UsageError(f"expected names of files in _data_files of {where}; save the dataset again")
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise UsageError(f"{where} takes some rows of its files only; save the dataset again with a newer `datasets`")
    return [f"{prefix}{name}" for name in names]


def _is_name(name: object) -> bool:
    """Say whether a document names a file: without folders, and with a name that may be one."""
    is_text = isinstance(name, str) and len(name) <= MAX_NAME_CHARACTERS
    return is_text and "/" not in str(name) and "\0" not in str(name) and is_plain(str(name))


def _document(address: str, options: StorageOptions) -> dict[str, object] | None:
    """Return a JSON object, None where there is no such file."""
    most = raised(MAX_DOCUMENT_BYTES)
    try:
        if is_store(address):
            content = read_object(address, options, max_bytes=most + 1)
        else:
            size_of_file(address)
            with open(address, "rb") as file:
                content = file.read(most + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {address}: {error.strerror}; check --images") from None
    except BadImage as bad:
        raise StorageError(f"cannot read {address}: {bad}") from None
    if content is None:
        return None
    try:
        if len(content) > most:
            raise UsageError(f"{address} has more than {most} bytes; save the dataset again, {RAISE}")
        document = json_of(content)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise UsageError(f"expected one JSON object in {address}; save the dataset again")
    return document
