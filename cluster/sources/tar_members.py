"""Walk the members of a tar file by their headers: nothing is extracted, and what members hold is not read.

`tarfile` parses a header of 512 bytes. What stands around headers is read here, as the file may be cut, or made to
harm: there, extended headers recurse and may have any length, all members stay in memory, and a damaged header in the
middle counts as the end.
"""

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from tarfile import BLOCKSIZE

from cam_ops.outside import RAISE, raised
from cluster.process.console import shortened

SHOWN_CHARACTERS = 40
MAX_HEADERS = 2**21  # of a file
MAX_EXTENDED_BYTES = 2**20  # of an extended header: names, attributes
MAX_PADDING_BYTES = 2**20  # of zeros after the end; writers fill blocks of 10 KiB
EXTENDED_TYPES = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
TYPES_WITHOUT_CONTENT = (
    *(tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE),
)
IS_EXTENDED = {0: 482, 1: 504}  # the byte of an old sparse member's header, of each further one, that announces another
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}

ReadAt = Callable[[int, int], bytes]
"""From an offset and a number of bytes to these bytes of a file, fewer only where it ends."""


class BadTar(Exception):
    """A tar file whose members cannot all be known; the text says why, and where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member of a tar file: `size` bytes from `offset` on, all of them inside the file."""

    name: str  # UTF-8, other bytes by surrogateescape, as in a path of Python's
    offset: int
    size: int
    is_file: bool  # no link, device, folder, and not sparse


def windowed(read_at: ReadAt, window_bytes: int) -> ReadAt:
    """Return a reader that asks for at least `window_bytes` at a time, and answers from these while it can."""
    start, window = 0, b""

    def read(offset: int, size: int) -> bytes:
        nonlocal start, window
        if not start <= offset <= offset + size <= start + len(window):
            start, window = offset, read_at(offset, max(size, window_bytes))
        return window[offset - start : offset - start + size]

    return read


def walk(read_at: ReadAt, num_bytes: int) -> Iterator[Member]:
    """Yield the members of a tar file of `num_bytes`, as they follow each other: ustar, GNU's and pax format.

    Raises BadTar, after the members before it, where the file is cut or compressed, has a header that is damaged or too
    long, or goes on after its end. Memory does not grow with the file.
    """
    at, extended = 0, _Extended()
    most = raised(MAX_HEADERS)
    for _ in range(most):
        header = _header(read_at, at, num_bytes)
        if header is None:
            _check_rest(read_at, at, num_bytes)
            return
        offset = at + BLOCKSIZE
        is_sparse = header.type == tarfile.GNUTYPE_SPARSE
        if is_sparse:
            offset += _further_headers(read_at, at)
        is_extended = header.type in EXTENDED_TYPES
        size = header.size if is_extended or extended.size is None else extended.size
        size = 0 if header.type in TYPES_WITHOUT_CONTENT else size
        if not 0 <= size <= num_bytes - offset:
            raise BadTar(
                f"is cut: its header at byte {at} announces {shortened(size, SHOWN_CHARACTERS)} bytes, "
                f"{max(0, num_bytes - offset)} follow"
            )
        at = offset + -(-size // BLOCKSIZE) * BLOCKSIZE
        if is_extended:
            extended = _extend(extended, header.type, _content(read_at, offset, size))
            continue
        if header.type != tarfile.XGLTYPE:
            yield Member(
                name=header.name if extended.name is None else extended.name,
                offset=offset,
                size=size,
                is_file=header.type in tarfile.REGULAR_TYPES and not is_sparse and not extended.is_sparse,
            )
            extended = _Extended()
    raise BadTar(f"has more than {most} members; pack it as several files, {RAISE}")


def _header(read_at: ReadAt, at: int, num_bytes: int) -> tarfile.TarInfo | None:
    """Parse the header at a place; None for the block of zeros that ends a tar file."""
    block = read_at(at, BLOCKSIZE)
    kind = next((kind for magic, kind in COMPRESSED.items() if not at and block.startswith(magic)), None)
    if kind is not None:
        raise BadTar(f"is compressed by {kind}, so that no picture can be read alone; unpack it to a .tar")
    if not num_bytes:
        raise BadTar("is empty")
    if len(block) < BLOCKSIZE:
        raise BadTar(f"is cut: it ends at byte {num_bytes} without the zeros that end a tar file")
    if not any(block):
        return None
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        raise BadTar("is no tar file" if not at else f"is damaged: there is no header at byte {at}") from None


def _check_rest(read_at: ReadAt, end: int, num_bytes: int) -> None:
    """Raise BadTar unless nothing but a bounded number of zeros follows the end of the members."""
    if num_bytes - end > MAX_PADDING_BYTES or any(read_at(end, num_bytes - end)):
        raise BadTar(
            f"goes on for {num_bytes - end} bytes after its end at byte {end}, as concatenated files do; join them "
            "by `tar --concatenate`"
        )


def _further_headers(read_at: ReadAt, at: int) -> int:
    """Return how many bytes of further headers follow the one of an old sparse member at `at`."""
    for num_further in range(MAX_EXTENDED_BYTES // BLOCKSIZE):
        block = read_at(at + num_further * BLOCKSIZE, BLOCKSIZE)
        if not any(block[(flag := IS_EXTENDED[min(num_further, 1)]) : flag + 1]):
            return num_further * BLOCKSIZE
    raise BadTar(f"has a header of more than {MAX_EXTENDED_BYTES} bytes at byte {at}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Extended:
    """What extended headers say of the member that follows."""

    name: str | None = None
    size: int | None = None
    is_sparse: bool = False


def _content(read_at: ReadAt, offset: int, size: int) -> bytes:
    if size > MAX_EXTENDED_BYTES:
        raise BadTar(f"has an extended header of {size} bytes at byte {offset}, at most {MAX_EXTENDED_BYTES} are read")
    return read_at(offset, size)


def _extend(known: _Extended, kind: bytes, content: bytes) -> _Extended:
    if kind == tarfile.GNUTYPE_LONGLINK:
        return known
    if kind == tarfile.GNUTYPE_LONGNAME:
        return replace(known, name=_text(content.partition(b"\0")[0]))
    records = _pax_records(content)
    name, size = records.get(b"path"), records.get(b"size")
    if size and not (size.isdigit() and len(size) < 20):
        raise BadTar(f"is damaged: an extended header says that a member has {shortened(size, SHOWN_CHARACTERS)} bytes")
    return _Extended(
        name=_text(name) if name else known.name,
        size=int(size) if size else known.size,
        is_sparse=known.is_sparse or any(key.startswith(b"GNU.sparse.") for key in records),
    )


def _pax_records(content: bytes) -> dict[bytes, bytes]:
    """Parse lines of a pax header, ``LENGTH KEY=VALUE`` with a line feed, each as long as it says of itself."""
    records, at = {}, 0
    while at < len(content) and content[at]:
        space = content.find(b" ", at, at + 20)
        digits = content[at : max(space, at)]
        end = at + int(digits) if digits.isdigit() else 0
        key, equals, value = content[space + 1 : end - 1].partition(b"=")
        if not space < end <= len(content) or content[end - 1 : end] != b"\n" or not equals:
            raise BadTar(
                f"is damaged: an extended header has a line that is none, {shortened(content[at:], SHOWN_CHARACTERS)}"
            )
        records[key], at = value, end
    return records


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
