"""Seeded mutations of files that are no pictures: of their bytes, and of what their format has of its own.

`mutate` changes one file by its suffix. The same generator makes the same file.
"""

import gzip
import io
import json
import pickletools
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import numpy as np

from tests.support.fuzz import mutated
from tests.support.mutated_tables import arrow_mutated, parquet_mutated
from tests.support.mutated_texts import (
    cells_mutated,
    changed_document,
    encoded,
    json_lines_mutated,
    json_mutated,
    one_of,
    word,
    xml_mutated,
    yaml_mutated,
)

Generator = np.random.Generator


def mutate(name: str, content: bytes, others: list[bytes], generator: Generator) -> bytes:
    """Return a file with some changes: of its bytes, of its text, or of what its format has."""
    chance = generator.random()
    if chance < 0.02:
        return one_of([b"", b"\n", b"\x00" * 100, b"a" * 200_000, b"\xff\xfe", b"{}", b"[" * 100_000], generator)
    if chance < 0.04:
        return one_of(others, generator)
    if chance < 0.3:
        return mutated(content, [content, *others], generator)
    change = FORMATS.get(PurePath(name).suffix.lower())
    return change(name, content, generator) if change else mutated(content, [content, *others], generator)


def _gzip(name: str, content: bytes, generator: Generator) -> bytes:
    inner = mutate(name.removesuffix(".gz"), gzip.decompress(content), [content], generator)
    if generator.random() < 0.01:
        inner += one_of((b"\n", b"a", b"a,"), generator) * 2**26
    packed = gzip.compress(inner, 1, mtime=0)
    return packed if generator.random() < 0.9 else mutated(packed, [content], generator)


def _zip(name: str, content: bytes, generator: Generator) -> bytes:
    """Change a member and pack them all again, as torch does; of a pickle half of the time a number or a text."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(member.filename, archive.read(member)) for member in archive.infolist()]
    chosen = [at for at, (inside, _) in enumerate(members) if inside.endswith("data.pkl")]
    at = one_of(chosen, generator) if generator.random() < 0.8 else int(generator.integers(len(members)))
    inside, held = members[at]
    kind = generator.integers(0, 8)
    if kind == 0:
        members[at] = (one_of((word(generator)[:1000], inside + "/", "archive/data/9"), generator), held)
    elif kind == 1:
        members[at:at] = [members[at]]
    elif kind == 2:
        del members[at]
    else:
        members[at] = (
            inside,
            pickle_mutated(held, generator) if inside.endswith(".pkl") else mutated(held, [held], generator),
        )
    stream, packing = io.BytesIO(), zipfile.ZIP_DEFLATED if generator.random() < 0.1 else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", packing) as archive, warnings.catch_warnings(action="ignore"):
        for inside, held in members:
            try:
                archive.writestr(zipfile.ZipInfo(inside.encode("utf-8", "replace").decode()), held, packing)
            except (ValueError, UnicodeError, struct.error):
                continue
    return stream.getvalue()


def pickle_mutated(content: bytes, generator: Generator) -> bytes:
    """Change a number or a text of a pickle, else its bytes."""
    found = []
    try:
        for opcode, argument, at in pickletools.genops(content):
            if opcode.name in (
                "BININT",
                "BININT1",
                "BININT2",
                "LONG1",
                "BINUNICODE",
                "SHORT_BINUNICODE",
                "GLOBAL",
                "BINGET",
            ):
                found.append((opcode.name, argument, at))
    except ValueError:
        pass
    if not found or generator.random() < 0.3:
        return mutated(content, [content], generator)
    name, argument, at = one_of(found, generator)
    width = {"BININT": 5, "BININT1": 2, "BININT2": 3, "BINGET": 2}.get(name, 0)
    if width:
        number = int(
            one_of((0, -1, 1, 2, 2**31 - 1, 2**34, 2**62, 2**63, -(2**31), int(generator.integers(256))), generator)
        )
        packed = number.to_bytes(9, "little", signed=True)
        return content[:at] + b"\x8a\x09" + packed + content[at + width :]
    if name == "GLOBAL":
        words = argument.split(" ")
        new = one_of(
            (
                ("os", "system"),
                ("builtins", "eval"),
                ("torch", "zeros"),
                ("a\x1b[31m", "b"),
                ("torch", "DoubleStorage"),
            ),
            generator,
        )
        return content[:at] + f"c{new[0]}\n{new[1]}\n".encode() + content[at + 3 + len(words[0]) + len(words[1]) :]
    if name == "BINUNICODE":
        text = word(generator).encode("utf-8", "surrogatepass")
        return content[:at] + b"X" + struct.pack("<I", len(text)) + text + content[at + 5 + len(argument.encode()) :]
    return mutated(content, [content], generator)


def _legacy(name: str, content: bytes, generator: Generator) -> bytes:
    return pickle_mutated(content, generator)


def _safetensors(name: str, content: bytes, generator: Generator) -> bytes:
    size = int.from_bytes(content[:8], "little")
    header = encoded(changed_document(json.loads(content[8 : 8 + size]), generator), generator)
    said = (
        len(header)
        if generator.random() < 0.9
        else int(one_of((0, 1, 2**31, 2**62, 2**63, len(header) + 1), generator))
    )
    return said.to_bytes(8, "little") + header + content[8 + size :]


def _tar(name: str, content: bytes, generator: Generator) -> bytes:
    """Change a member, its name, its kind or its header, whose checksum is right again, and pack them all."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar.getmembers()]  # type: ignore[union-attr]
    at = int(generator.integers(len(members)))
    member, held = members[at]
    kind = generator.integers(0, 6)
    if kind < 3:
        held = mutate(member.name, held, [content], generator)
    elif kind == 3:
        member.name = word(generator)[:5000].replace("\0", "") + one_of(("", ".json", ".jpg"), generator)
    elif kind == 4:
        member.type = one_of(
            (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, b"S", b"K", b"Z"), generator
        )
        member.linkname = one_of(("/etc/passwd", "../../up", member.name), generator)
    else:
        member.pax_headers = {
            one_of(("path", "size", "comment", "GNU.sparse.map"), generator): word(generator).replace("\0", "")
        }
    members[at] = member, held
    stream = io.BytesIO()
    with tarfile.open(
        fileobj=stream, mode="w", format=one_of((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT), generator)
    ) as tar:
        for each, inside in members:
            each.size = len(inside) if each.isreg() else 0
            tar.addfile(each, io.BytesIO(inside))
    packed = bytearray(stream.getvalue())
    if generator.random() < 0.2:
        place = 512 * int(generator.integers(len(packed) // 512))
        field, value = (
            one_of((124, 136, 100, 156, 345), generator),
            one_of((b"7" * 11, b"\x80" + b"\xff" * 10, b"-1", b"\0" * 11), generator),
        )
        packed[place + field : place + field + len(value)] = value
        packed[place + 148 : place + 156] = b" " * 8
        packed[place + 148 : place + 156] = b"%06o\0 " % (sum(packed[place : place + 512]) % 8**6)
    return bytes(packed)


FORMATS: dict[str, Callable[[str, bytes, Generator], bytes]] = {
    ".json": json_mutated,
    ".jsonl": json_lines_mutated,
    ".csv": cells_mutated,
    ".tsv": cells_mutated,
    ".txt": cells_mutated,
    ".yaml": yaml_mutated,
    ".xml": xml_mutated,
    ".gz": _gzip,
    ".pt": _zip,
    ".pth": _legacy,
    ".safetensors": _safetensors,
    ".tar": _tar,
    ".parquet": lambda name, content, generator: parquet_mutated(content, _texts(generator), generator),
    ".arrow": lambda name, content, generator: arrow_mutated(content, _texts(generator), generator),
}


def _texts(generator: Generator) -> Callable[[Any], str]:
    """Return what makes another text of a document, or a hostile one of none."""
    return lambda document: word(generator) if document is None else changed_document(document, generator)
