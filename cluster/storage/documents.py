"""What is wrong with a document from outside, by pydantic's first error."""

from pydantic import ValidationError


def first_reason(error: ValidationError) -> str:
    """Return where a document is wrong first, and how, without its values: they may be secrets, or long."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))[:80] or 'as a whole'}: {first['msg']}"
