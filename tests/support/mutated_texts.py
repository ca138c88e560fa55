"""Seeded mutations of texts: JSON, lists and tables of text, YAML, XML."""

import json
import re
from copy import deepcopy
from typing import Any

import numpy as np

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


def one_of(choices: Any, generator: Generator) -> Any:
    return choices[int(generator.integers(len(choices)))]


def word(generator: Generator) -> str:
    return str(one_of(WORDS, generator))


def encoded(text: str, generator: Generator) -> bytes:
    """Return a text in UTF-8, or one time in ten in another encoding, or with other ends of lines."""
    chance = generator.random()
    if chance < 0.06:
        return text.encode(one_of(ENCODINGS, generator), "replace")
    if chance < 0.1:
        text = text.replace("\n", one_of(("\r\n", "\r", "\n\n", "\x0b", "\u2028", "\n\x00"), generator))
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
        key = int(generator.integers(len(value))) if isinstance(value, list) else one_of(list(value), generator)
    return inner, key


def _change_entry(inner: Any, key: Any, box: list[Any], raw: list[str], generator: Generator) -> None:
    kind = generator.integers(0, 12)
    if kind < 4:
        inner[key] = deepcopy(one_of(VALUES, generator))
    elif kind < 6:
        inner[key] = word(generator)
    elif kind == 6:
        depth = int(2 ** generator.uniform(1, 17))
        raw.append(one_of(TEXTS_OF_JSON, generator) if generator.random() < 0.8 else "[" * depth + "]" * depth)
        inner[key] = f"@raw{len(raw) - 1}@"
    elif kind == 7 and inner is not box:
        del inner[key]
    elif kind == 8 and isinstance(inner, dict):
        inner[f"{key}@twice@"] = deepcopy(one_of(VALUES, generator))
    elif kind == 9 and isinstance(inner, dict):
        inner[word(generator)] = inner.pop(key)
    elif kind == 10 and isinstance(inner, list) and inner is not box:
        inner[key:key] = [inner[key]] * int(2 ** generator.uniform(0, 8))
    else:
        inner[key] = one_of(([inner[key]], {"a": inner[key]}), generator)


def json_mutated(name: str, content: bytes, generator: Generator) -> bytes:
    return encoded(changed_document(json.loads(content), generator), generator)


def json_lines_mutated(name: str, content: bytes, generator: Generator) -> bytes:
    lines = texted(content).splitlines()
    at = int(generator.integers(len(lines)))
    lines[at] = changed_document(json.loads(lines[at]), generator)
    return encoded("\n".join(lines), generator)


# Text


def cells_mutated(name: str, content: bytes, generator: Generator) -> bytes:
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
            parts[cell:cell] = parts[cell : cell + 1] + [one_of(",;\t |", generator)] * int(
                2 ** generator.uniform(0, 11)
            )
        elif kind == 6:
            lines[at:at] = [lines[at]] * int(2 ** generator.uniform(0, 9))
            continue
        elif kind == 7 and len(lines) > 1:
            del lines[at]
            continue
        else:
            lines[at:at] = [one_of((word(generator), "#" + word(generator), ""), generator)]
            continue
        lines[at] = "".join(parts)
    return encoded("\n".join(lines) + "\n" * int(generator.integers(2)), generator)


def yaml_mutated(name: str, content: bytes, generator: Generator) -> bytes:
    lines = texted(content).splitlines()
    at = int(generator.integers(len(lines)))
    key, colon, value = lines[at].partition(": ")
    kind = generator.integers(0, 6)
    new = one_of(YAML, generator) if kind < 4 else word(generator)
    lines[at] = f"{key}: {new}" if colon and kind % 2 else f"{new}: {value}" if kind == 2 else f"{lines[at]}\n{new}"
    return encoded("\n".join(lines), generator)


def xml_mutated(name: str, content: bytes, generator: Generator) -> bytes:
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
            pieces[at] += one_of(
                ("<a>" * 2000, "&b;", "<![CDATA[1]]>", "&#0;", "&#xD800;", "\x07", "<a b='c' b='d'/>"), generator
            )
        else:
            pieces.insert(0, one_of(PROLOGS, generator))
        text = "".join(pieces)
    return encoded(text, generator)
