"""What lies below an address on an object store."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import pyarrow as pa

from cluster.storage.options import StorageOptions
from cluster.storage.pages import Page, pages

NUM_LISTERS = 8
ENOUGH_FOLDERS = 64  # to keep them busy: the rest is listed with all below it, in fewer requests
MANY_FOLDERS = 100_000
ROWS_PER_PART = 2**15


def list_objects(address: str, options: StorageOptions, *, recursive: bool = True) -> Iterator[tuple[str, int]]:
    """Yield the objects below an address in no order: the path below it, and the size in bytes; none is no error."""
    for page in pages(address, options, recursive=recursive):
        yield from zip(page.names, page.sizes, strict=True)


def object_times(address: str, options: StorageOptions) -> dict[str, float]:
    """Return when each object right below an address was put there, by its name: seconds since 1970."""
    found: dict[str, float] = {}
    for page in pages(address, options, recursive=False):
        found |= zip(page.names, page.times_s, strict=True)
    return found


def list_level(address: str, options: StorageOptions) -> tuple[list[tuple[str, int]], list[str]]:
    """Return the objects right below an address, each with its size in bytes, and the folders; none is no error."""
    files: list[tuple[str, int]] = []
    folders: set[str] = set()
    for page in pages(address, options, recursive=False):
        files += zip(page.names, page.sizes, strict=True)
        folders |= set(page.folders)
    return files, sorted(folders)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some of the objects below an address: of those right in a folder of it, or of all below that."""

    folder: str  # below the address, with `/` at its end, or empty
    files: pa.RecordBatch  # `name`, below the address, and `size` in bytes
    folders: list[str] | None = None  # names of those right in it, with the last part; None where these are entered
    cut: tuple[str, ...] = ()  # folders, with `/`, of which another part has more


Enter = Callable[[Part], Sequence[str]]
"""From the last part of the objects right in a folder to those of its `folders` that are of interest."""


def walk_objects(address: str, options: StorageOptions, enter: Enter) -> Iterator[Part]:
    """Yield the objects below an address part by part, in no order; none is no error.

    Several folders are listed at a time, page by page: memory holds no more than a part of each, and names of folders.
    """
    ahead, under_way = deque([""]), dict[Future[Part | None], Iterator[Part]]()
    pool = ThreadPoolExecutor(NUM_LISTERS, thread_name_prefix="list")

    def go_on(parts: Iterator[Part]) -> None:
        under_way[pool.submit(next, parts, None)] = parts

    try:
        while ahead or under_way:
            while ahead and len(under_way) < NUM_LISTERS:
                is_enough = len(ahead) + len(under_way) > ENOUGH_FOLDERS
                go_on((_deep_parts if is_enough else _level_parts)(address, ahead.popleft(), options))
            done, _ = wait(under_way, return_when=FIRST_COMPLETED)
            for future in done:
                parts, part = under_way.pop(future), future.result()
                if part is None:
                    continue
                go_on(parts)
                folders = enter(part) if part.folders else ()
                if len(folders) > MANY_FOLDERS:  # a request for each would take hours
                    go_on(_deep_parts(address, part.folder, options, least_depth=1))
                else:
                    ahead += [f"{part.folder}{name}/" for name in folders]
                yield part
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # after an interrupt, a store may not answer for a minute


def _level_parts(address: str, folder: str, options: StorageOptions) -> Iterator[Part]:
    """Yield what lies right in a folder."""
    rows, folders = _Rows(folder), set[str]()
    for page in pages(address, options, folder=folder, recursive=False):
        rows.add(page)
        folders |= set(page.folders)
        if rows.are_many:
            yield rows.part(cut=(folder,))
    yield rows.part(folders=sorted(folders), cut=(folder,) if rows.num_parts else ())


def _deep_parts(address: str, folder: str, options: StorageOptions, least_depth: int = 0) -> Iterator[Part]:
    """Yield all below a folder, or what lies at least so many folders deeper."""
    rows = _Rows(folder, least_depth)
    for page in pages(address, options, folder=folder, recursive=True):
        rows.add(page)
        if rows.are_many:
            yield rows.part(cut=rows.outer_folders())
    yield rows.part(cut=rows.outer_folders() if rows.num_parts else ())


class _Rows:
    """Objects of pages, until they make a part."""

    def __init__(self, folder: str, least_depth: int = 0) -> None:
        self.folder, self.least_depth = folder, least_depth
        self.names: list[str] = []
        self.sizes: list[int] = []
        self.num_parts = 0

    @property
    def are_many(self) -> bool:
        return len(self.names) >= ROWS_PER_PART

    def add(self, page: Page) -> None:
        for name, size in zip(page.names, page.sizes, strict=True):
            if name.count("/", len(self.folder)) >= self.least_depth:
                self.names.append(name)
                self.sizes.append(size)

    def outer_folders(self) -> tuple[str, ...]:
        """Return the folders of the first and of the last object: those before and after may lie there too."""
        found = {self.folder}
        for name in (self.names[0], self.names[-1]) if self.names else ():
            found |= {name[: at + 1] for at in range(len(self.folder), len(name)) if name[at] == "/"}
        return tuple(sorted(found))

    def part(self, *, folders: list[str] | None = None, cut: tuple[str, ...]) -> Part:
        arrays = [pa.array(self.names, pa.string()), pa.array(self.sizes, pa.int64())]
        self.names, self.sizes, self.num_parts = [], [], self.num_parts + 1
        files = pa.record_batch(arrays, ["name", "size"])
        return Part(folder=self.folder, files=files, folders=folders, cut=cut)
