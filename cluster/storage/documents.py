"""JSON documents: written so that they can be read, and read as dataclasses."""

import codecs
import json
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from cam_ops.documents import check_json
from cam_ops.errors import UsageError
from cam_ops.foreign import half_in, whole

Document = TypeVar("Document")


def document_bytes(document: dict[str, Any], name: str, indent: int | None = 1) -> bytes:
    """Return a document, which will be the file `name`, as JSON in ASCII.

    Raises UsageError for a text that UTF-8 cannot hold, such as a path with other bytes: nobody could read the file.
    """
    if found := half_in(document):
        where, text = found
        raise UsageError(
            f"{name} cannot hold {whole(text)[:200]!r}, its {whole(where)[:80]}, which is no text in UTF-8; give "
            "names and paths in UTF-8"
        )
    return json.dumps(document, indent=indent, allow_nan=False).encode()


def validated(kind: type[Document], content: bytes, *, is_strict: bool = True) -> Document:
    """Return a JSON document as a dataclass. Raises ValueError with what is wrong first, and where."""
    check_json(content)
    try:
        return TypeAdapter(kind).validate_json(content.removeprefix(codecs.BOM_UTF8), strict=is_strict)
    except ValidationError as error:
        raise ValueError(_first_reason(error)) from None


def _first_reason(error: ValidationError) -> str:
    """Return where a document is wrong first, and how, without its values: they may be secrets, or long."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))[:80] or 'as a whole'}: {first['msg']}"
