"""Documents that others have made: JSON, YAML and XML, each read in one place.

Whatever is wrong with one is a ValueError with a sentence, and whatever it says, nothing of it is executed.
"""

import json
from collections.abc import Callable
from typing import Any
from xml.etree.ElementTree import ParseError  # to catch; it reads nothing

import yaml
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from cam_ops.foreign import HALF
from cam_ops.outside import RAISE, raised

MAX_DEPTH = 100  # of YAML, whose scanner takes the square of it in time
MAX_TOKENS = 2**17  # of YAML; names of ImageNet's 21,841 classes take 90,000
MAX_OBJECTS, MAX_COMMAS = 2**20, 2**23  # of JSON, and of a larger document by its size:
BYTES_AN_OBJECT, BYTES_A_COMMA = 40, 6  # a box of COCO's has 60 at the least
ESCAPED = "\\ud"  # begins half of a pair that makes a character: alone it is none
OPENING = (
    *(yaml.BlockMappingStartToken, yaml.BlockSequenceStartToken),
    *(yaml.FlowMappingStartToken, yaml.FlowSequenceStartToken),
)
CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)

Pairs = Callable[[list[tuple[str, Any]]], Any]


def json_of(content: str | bytes, object_of: Pairs | None = None) -> Any:
    """Return what a JSON document holds; `object_of` makes an object of its pairs. Raises ValueError."""
    check_json(content)
    text = content if isinstance(content, str) else content.decode(json.detect_encoding(content))
    try:
        document = json.loads(text, object_pairs_hook=object_of)
        if ESCAPED in text.lower():
            _refuse_halves(json.dumps(document, ensure_ascii=False))
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    return document


def check_json(content: str | bytes) -> None:
    """Raise ValueError for JSON that would become many times its size: a value of two bytes takes a hundred."""
    count = content.count if isinstance(content, str) else lambda sign: content.count(sign.encode())
    most = raised(max(MAX_OBJECTS, len(content) // BYTES_AN_OBJECT))
    if (num_objects := count("{")) > most:
        raise ValueError(
            f"it has {num_objects} objects, at most {most} are read of {len(content)} bytes; cut it, {RAISE}"
        )
    most = raised(max(MAX_COMMAS, len(content) // BYTES_A_COMMA))
    if (num_values := count(",") + count("[")) > most:
        raise ValueError(
            f"it has {num_values} values, at most {most} are read of {len(content)} bytes; cut it, {RAISE}"
        )


def yaml_of(text: str, *, is_typed: bool) -> Any:
    """Return what a YAML document holds: true, numbers and dates as such where `is_typed`, else the text of each.

    Raises ValueError, also for aliases, which fill the memory where they are merged, and for tags where it is typed.
    """
    depth = 0
    try:
        for number, token in enumerate(yaml.scan(text)):
            if isinstance(token, yaml.AliasToken):
                raise ValueError("it has aliases, which are not read")
            if isinstance(token, yaml.TagToken) and is_typed:
                raise ValueError("it has tags, which are not read")
            if isinstance(token, yaml.ScalarToken):
                _refuse_halves(token.value)
            depth += isinstance(token, OPENING) - isinstance(token, CLOSING)
            if depth > MAX_DEPTH:
                raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
            if number > (most := raised(MAX_TOKENS)):
                raise ValueError(f"it has more than {most} words and signs; shorten it, {RAISE}")
        return (yaml.SafeLoader if is_typed else yaml.BaseLoader)(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"it is no YAML: {error.problem}{line}") from None
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError) as error:  # PyYAML's, for scalars, too
        raise ValueError(f"it is no YAML: {str(error).partition(chr(10))[0]}") from None


def xml_of(content: bytes) -> Any:
    """Return the root of an XML document. Raises ValueError, also for one with a DTD, and so with entities."""
    try:
        return fromstring(content, forbid_dtd=True)
    except DefusedXmlException:
        raise ValueError("it has a DTD or entities, which are not read") from None
    except ParseError as error:
        raise ValueError(f"it is no whole XML: {error}") from None
    except (LookupError, ValueError):  # of the codec that it names
        raise ValueError("it says that it is in an encoding that is not read; save it in UTF-8") from None


def _refuse_halves(text: str) -> None:
    """Raise ValueError for a text that no file can hold."""
    if HALF.search(text):
        raise ValueError("it has half of a surrogate pair, which is no Unicode character")
