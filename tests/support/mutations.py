"""Seeded mutations of files that are no pictures: of their bytes, and of what their format has of its own.

`mutate` changes one file by its suffix. The same generator makes the same file.
"""

import gzip
import io
import json
import pickletools
import re
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import numpy as np

from tests.support.fuzz import mutated
from tests.support.mutated_tables import arrow_mutated, parquet_mutated

Generator = np.random.Generator
RAW = re.compile(r'"@raw(\d+)@"')
WORDS: tuple[str, ...] = (
    *("", " ", "0", "-1", "1", "2", "0.5", "nan", "inf", "-inf", "1e5", "1e308", "1e999", "0x10", "1_000", "\u00b2"),
    *("\uff11\uff12", "\u0663", "9" * 30, "9" * 5000, "2147483648", "18446744073709551616", "true", "null", "None"),
    *("\x1b[31mred", "\x9b2J", "\u202egnp.exe", "a\nb", "a\rb", "a\x00b", "\u2028", "\ufeff", "\u00a0", "\U0001f98a"),
    *(
        "../../up",
        "/etc/passwd",
        "/dev/zero",
        "C:\\a",
        "a/../b",
        ".",
        "..",
        "~",
        "a" * 300,
        "b" * 70_000,
        "%s%n",
        "{0}",
    ),
    *('"', "'", "a,b;c\td|e", "=1+1", "<b>&amp;", "]]>", "- a: b", "square", "round", "square/00.jpg", "class_id"),
)
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        0.5,
        1e308,
        -1e308,
        5e-324,
        2**31,
        2**32,
        2**53 + 1,
        2**63,
        2**64,
        10**30,
        -(2**63),
    ),
    *([], {}, [[]], [None], {"": None}, {"a": {"b": []}}, [0] * 5, [1e9] * 4, list("abc"), [0] * 20_000),
)
TEXTS_OF_JSON = ("NaN", "Infinity", "-Infinity", "1e999", "9" * 6000, '"\\ud800"', '"\\u0000"', "-0", "01", "'a'", "")
YAML = (
    *("!!int ''", "!!bool zz", "!!float x", "!!timestamp 1", "!!binary '='", "!!set {a, b}", "!!omap [a]", "!!null x"),
    *(
        "!!python/object/apply:os.getcwd []",
        "!!python/name:os.system ''",
        "*missing",
        "&a [*a]",
        "{<<: 1}",
        "{? {} : 1}",
    ),
    *(
        "2001-99-99",
        "0o9",
        "0b2",
        "1:99:99",
        ".inf",
        "~",
        "|",
        ">-",
        "'\\ud800'",
        '"\\ud800"',
        '"\\x07"',
        "@a",
        "%a",
        "`",
    ),
    *("[" * 3000, "{a: " * 3000, "? " * 3000, "- " * 3000, "&a " * 30, "!a!b c", "---\na", "...", "\t- a"),
)
ENCODINGS = ("utf-16", "utf-8-sig", "utf-32", "latin-1", "cp500", "utf-7", "shift_jis")
PROLOGS = (
    *(
        f'<?xml version="1.0" encoding="{name}"?>'
        for name in ("base64", "utf-16", "idna", "rot13", "latin-1", "zip", "x")
    ),
    *(
        "<?xml version='2.0'?>",
        "<!DOCTYPE a [<!ENTITY b 'cc'>]>",
        "<!DOCTYPE a SYSTEM 'file:///etc/passwd'>",
        "<!--",
        "<?a b?>",
    ),
)


def mutate(name: str, content: bytes, others: list[bytes], generator: Generator) -> bytes:
    """Return a file with some changes: of its bytes, of its text, or of what its format has."""
    chance = generator.random()
    if chance < 0.02:
        return _of([b"", b"\n", b"\x00" * 100, b"a" * 200_000, b"\xff\xfe", b"{}", b"[" * 100_000], generator)
    if chance < 0.04:
        return _of(others, generator)
    if chance < 0.3:
        return mutated(content, [content, *others], generator)
    change = FORMATS.get(PurePath(name).suffix.lower())
    return change(name, content, generator) if change else mutated(content, [content, *others], generator)


def _of(choices: Any, generator: Generator) -> Any:
    return choices[int(generator.integers(len(choices)))]


def word(generator: Generator) -> str:
    return str(_of(WORDS, generator))


def encoded(text: str, generator: Generator) -> bytes:
    """Return a text in UTF-8, or one time in ten in another encoding, or with other ends of lines."""
    chance = generator.random()
    if chance < 0.06:
        return text.encode(_of(ENCODINGS, generator), "replace")
    if chance < 0.1:
        text = text.replace("\n", _of(("\r\n", "\r", "\n\n", "\x0b", "\u2028", "\n\x00"), generator))
    return text.encode("utf-8", "surrogatepass")


def texted(content: bytes) -> str:
    return content.decode("utf-8", "replace")


# JSON


def changed_document(document: Any, generator: Generator) -> str:
    """Return JSON's text of a document in which one to three values are others."""
    raw: list[str] = []
    box = [json.loads(json.dumps(document))]
    for _ in range(generator.integers(1, 4)):
        inner, key = _descended(box, generator)
        _change_entry(inner, key, box, raw, generator)
    text = json.dumps(box[0], ensure_ascii=bool(generator.integers(2)))
    text = RAW.sub(lambda found: raw[int(found[1])], text)
    return text.replace('@twice@"', '"')


def _descended(box: list[Any], generator: Generator) -> tuple[Any, Any]:
    """Return a container of a document, and a key in it; what is deep is as likely as what is not."""
    inner, key = box, 0
    while (value := inner[key]) and isinstance(value, (list, dict)) and generator.random() < 0.85:  # type: ignore[call-overload]
        inner = value
        key = int(generator.integers(len(value))) if isinstance(value, list) else _of(list(value), generator)
    return inner, key


def _change_entry(inner: Any, key: Any, box: list[Any], raw: list[str], generator: Generator) -> None:
    kind = generator.integers(0, 12)
    if kind < 4:
        inner[key] = _of(VALUES, generator)
    elif kind < 6:
        inner[key] = word(generator)
    elif kind == 6:
        depth = int(2 ** generator.uniform(1, 17))
        raw.append(_of(TEXTS_OF_JSON, generator) if generator.random() < 0.8 else "[" * depth + "]" * depth)
        inner[key] = f"@raw{len(raw) - 1}@"
    elif kind == 7 and inner is not box:
        del inner[key]
    elif kind == 8 and isinstance(inner, dict):
        inner[f"{key}@twice@"] = _of(VALUES, generator)
    elif kind == 9 and isinstance(inner, dict):
        inner[word(generator)] = inner.pop(key)
    elif kind == 10 and isinstance(inner, list) and inner is not box:
        inner[key:key] = [inner[key]] * int(2 ** generator.uniform(0, 8))
    else:
        inner[key] = _of(([inner[key]], {"a": inner[key]}), generator)


def _json(name: str, content: bytes, generator: Generator) -> bytes:
    return encoded(changed_document(json.loads(content), generator), generator)


def _json_lines(name: str, content: bytes, generator: Generator) -> bytes:
    lines = texted(content).splitlines()
    at = int(generator.integers(len(lines)))
    lines[at] = changed_document(json.loads(lines[at]), generator)
    return encoded("\n".join(lines), generator)


# Text


def _cells(name: str, content: bytes, generator: Generator) -> bytes:
    """Change cells or lines of a CSV, or of a list of lines; half of the time the first line, which is the header."""
    lines = texted(content).splitlines()
    for _ in range(generator.integers(1, 4)):
        at = int(generator.integers(len(lines))) if generator.random() < 0.7 else 0
        parts = re.split(r"([,;\t ]|: )", lines[at])
        cell = 2 * int(generator.integers((len(parts) + 1) // 2))
        kind = generator.integers(0, 9)
        if kind < 3:
            parts[cell] = word(generator)
        elif kind == 3:
            parts[cell] = f'"{word(generator)}"'
        elif kind == 4:
            parts[cell : cell + 2] = []
        elif kind == 5:
            parts[cell:cell] = parts[cell : cell + 1] + [_of(",;\t |", generator)] * int(2 ** generator.uniform(0, 11))
        elif kind == 6:
            lines[at:at] = [lines[at]] * int(2 ** generator.uniform(0, 9))
            continue
        elif kind == 7 and len(lines) > 1:
            del lines[at]
            continue
        else:
            lines[at:at] = [_of((word(generator), "#" + word(generator), ""), generator)]
            continue
        lines[at] = "".join(parts)
    return encoded("\n".join(lines) + "\n" * int(generator.integers(2)), generator)


def _yaml(name: str, content: bytes, generator: Generator) -> bytes:
    lines = texted(content).splitlines()
    at = int(generator.integers(len(lines)))
    key, colon, value = lines[at].partition(": ")
    kind = generator.integers(0, 6)
    new = _of(YAML, generator) if kind < 4 else word(generator)
    lines[at] = f"{key}: {new}" if colon and kind % 2 else f"{new}: {value}" if kind == 2 else f"{lines[at]}\n{new}"
    return encoded("\n".join(lines), generator)


def _xml(name: str, content: bytes, generator: Generator) -> bytes:
    text = texted(content)
    for _ in range(generator.integers(1, 4)):
        pieces = re.split(r"(<[^>]*>)", text)
        at = int(generator.integers(len(pieces)))
        kind = generator.integers(0, 7)
        if kind < 3:
            value = word(generator)
            pieces[at] = f"<{value[:100]}>" if pieces[at].startswith("<") and kind == 2 else value.replace("<", "&lt;")
        elif kind == 3:
            pieces[at : at + 2] = []
        elif kind == 4:
            pieces[at:at] = pieces[at : at + 8] * int(2 ** generator.uniform(0, 8))
        elif kind == 5:
            pieces[at] += _of(
                ("<a>" * 2000, "&b;", "<![CDATA[1]]>", "&#0;", "&#xD800;", "\x07", "<a b='c' b='d'/>"), generator
            )
        else:
            pieces.insert(0, _of(PROLOGS, generator))
        text = "".join(pieces)
    return encoded(text, generator)


# What holds other files


def _gzip(name: str, content: bytes, generator: Generator) -> bytes:
    inner = mutate(name.removesuffix(".gz"), gzip.decompress(content), [content], generator)
    if generator.random() < 0.01:
        inner += _of((b"\n", b"a", b"a,"), generator) * 2**26
    packed = gzip.compress(inner, 1, mtime=0)
    return packed if generator.random() < 0.9 else mutated(packed, [content], generator)


def _zip(name: str, content: bytes, generator: Generator) -> bytes:
    """Change a member and pack them all again, as torch does; of a pickle half of the time a number or a text."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(member.filename, archive.read(member)) for member in archive.infolist()]
    chosen = [at for at, (inside, _) in enumerate(members) if inside.endswith("data.pkl")]
    at = _of(chosen, generator) if generator.random() < 0.8 else int(generator.integers(len(members)))
    inside, held = members[at]
    kind = generator.integers(0, 8)
    if kind == 0:
        members[at] = (_of((word(generator)[:1000], inside + "/", "archive/data/9"), generator), held)
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
    with zipfile.ZipFile(stream, "w", packing) as archive:
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
    name, argument, at = _of(found, generator)
    width = {"BININT": 5, "BININT1": 2, "BININT2": 3, "BINGET": 2}.get(name, 0)
    if width:
        number = int(
            _of((0, -1, 1, 2, 2**31 - 1, 2**34, 2**62, 2**63, -(2**31), int(generator.integers(256))), generator)
        )
        packed = number.to_bytes(9, "little", signed=True)
        return content[:at] + b"\x8a\x09" + packed + content[at + width :]
    if name == "GLOBAL":
        words = argument.split(" ")
        new = _of(
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
        len(header) if generator.random() < 0.9 else int(_of((0, 1, 2**31, 2**62, 2**63, len(header) + 1), generator))
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
        member.name = word(generator)[:5000].replace("\0", "") + _of(("", ".json", ".jpg"), generator)
    elif kind == 4:
        member.type = _of(
            (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, b"S", b"K", b"Z"), generator
        )
        member.linkname = _of(("/etc/passwd", "../../up", member.name), generator)
    else:
        member.pax_headers = {
            _of(("path", "size", "comment", "GNU.sparse.map"), generator): word(generator).replace("\0", "")
        }
    members[at] = member, held
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=_of((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT), generator)) as tar:
        for each, inside in members:
            each.size = len(inside) if each.isreg() else 0
            tar.addfile(each, io.BytesIO(inside))
    packed = bytearray(stream.getvalue())
    if generator.random() < 0.2:
        place = 512 * int(generator.integers(len(packed) // 512))
        field, value = (
            _of((124, 136, 100, 156, 345), generator),
            _of((b"7" * 11, b"\x80" + b"\xff" * 10, b"-1", b"\0" * 11), generator),
        )
        packed[place + field : place + field + len(value)] = value
        packed[place + 148 : place + 156] = b" " * 8
        packed[place + 148 : place + 156] = b"%06o\0 " % (sum(packed[place : place + 512]) % 8**6)
    return bytes(packed)


FORMATS: dict[str, Callable[[str, bytes, Generator], bytes]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".csv": _cells,
    ".tsv": _cells,
    ".txt": _cells,
    ".yaml": _yaml,
    ".xml": _xml,
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
