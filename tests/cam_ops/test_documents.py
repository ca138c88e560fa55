"""Documents of others: what is wrong with one is a sentence, what is right is what another reader says."""

import json
from typing import Any

import pytest
import yaml

from cam_ops.documents import json_of, xml_of, yaml_of

ODD_YAML = {
    "an empty integer": "a: !!int ''",
    "a truth that is none": "a: !!bool zz",
    "a time that is none": "a: !!timestamp x",
    "a date that is none": "a: 2001-99-99",
    "a number that is none": "a: !!float x",
    "an object": "a: !!python/object/apply:os.system ['echo hi']",
    "an object by a handle": "%TAG ! tag:yaml.org,2002:python/\n---\na: !name:os.system",
    "an alias": "a: &a 1\nb: *a",
    "a mapping merged with itself": "a: &a\n  <<: *a",
    "half of a pair": '"\\ud800": 1',
    "half of a pair as a value": 'a: "\\udc00"',
    "a character beyond all": 'a: "\\Uffffffff"',
    "a control character": "a: \x1b[31m",
    "a key that is a list": "? [1]\n: 2",
    "two documents": "a: 1\n---\nb: 2",
    "a sign of equality": "a: =",
    "brackets": "a: " + "[" * 100_000,
    "lists of lists": "\n".join("  " * i + "- " for i in range(200)),
    "an integer without an end": "a: " + "9" * 5000,
}


@pytest.mark.parametrize("name", ODD_YAML)
def test_yaml_that_cannot_be_is_a_value_error_of_one_line(name: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        yaml_of(ODD_YAML[name] + "\n", is_typed=True)


def test_yaml_is_typed_or_not_as_pyyaml_has_it() -> None:
    text = "a: 0.20\nb: [no, 'no', 1_000]\nc: {d: 2001-01-01, e: ~}\n"
    assert yaml_of(text, is_typed=True) == yaml.safe_load(text)
    assert yaml_of(text, is_typed=False) == {
        "a": "0.20",
        "b": ["no", "no", "1_000"],
        "c": {"d": "2001-01-01", "e": "~"},
    }
    assert yaml_of("path: !!python/name:os.system x\n", is_typed=False) == {"path": "x"}


def voc(encoding: str) -> bytes:
    return f'<?xml version="1.0" encoding="{encoding}"?><annotation><a>1</a></annotation>'.encode("ascii")


@pytest.mark.parametrize("encoding", ["base64", "rot13", "hex", "zlib", "idna", "undefined", "utf-32", "nonsense"])
def test_an_xml_in_an_encoding_that_is_none_of_text_is_a_value_error_of_one_line(encoding: str) -> None:
    with pytest.raises(ValueError, match=r"^it [^\n]+$"):
        xml_of(voc(encoding))


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "koi8-r", "us-ascii"])
def test_an_xml_in_another_encoding_is_read(encoding: str) -> None:
    assert xml_of(voc(encoding)).findtext("a") == "1"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[" * 100_000,
        '{"a":' * 5_000,
        '"\\ud800"',
        '{"\\uDC00": 1}',
        b'"\xed\xa0\x80"',
        b"\xff",
        "9" * 5000,
        "{} {}",
    ],
)
def test_json_that_cannot_be_is_a_value_error(content: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        json_of(content)


@pytest.mark.parametrize("document", [{"a": ["\U0001f98a", "\u00e4", 1.5, None]}, "\\ud", [], "\ud7ff"])
def test_json_is_read_as_python_reads_it(document: Any) -> None:
    for text in (json.dumps(document), json.dumps(document, ensure_ascii=False)):
        assert json_of(text) == json_of(text.encode("utf-16")) == document
