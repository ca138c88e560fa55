"""The tables in docs/output.md, made from the schemas and written between their markers when this is run."""

import re
from pathlib import Path

import pyarrow as pa

from cam_ops.tables import (
    CALIBRATED_BOXES,
    COLUMNS,
    IMAGES,
    PLAN,
    STATUSES,
    SUSPECTS,
    heatmaps_schema,
    with_labels,
)

PAGE = Path(__file__).parent.parent.parent / "docs" / "output.md"
SCHEMAS = {
    "images": with_labels(IMAGES, True),
    "boxes": CALIBRATED_BOXES,
    "heatmaps": heatmaps_schema((7, 7), (7, 7)),
    "plan": with_labels(PLAN, True),
    "suspects": SUSPECTS,
}
MARKED = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def made(page: str) -> str:
    """Return the page with what is made between its markers made anew."""
    return MARKED.sub(lambda match: match[1] + (_statuses() if match[2] == "statuses" else _columns(match[2])), page)


def _columns(table: str) -> str:
    lines = ["| column | type | null | meaning |", "|---|---|---|---|"]
    for field in SCHEMAS[table]:
        meaning = COLUMNS[table][field.name]
        lines.append(f"| `{field.name}` | {_type(field.type)} | {'yes' if field.nullable else ''} | {meaning} |")
    return "\n".join(lines) + "\n<!-- end -->"


def _type(kind: pa.DataType) -> str:
    if isinstance(kind, pa.FixedShapeTensorType):
        return "tensor of float32, h x w"
    if pa.types.is_list(kind):
        return f"list of {_type(kind.value_type)}"
    return {"float": "float32"}.get(str(kind), str(kind))


def _statuses() -> str:
    lines = ["| status | means |", "|---|---|", *(f"| `{status}` | {text} |" for status, text in STATUSES.items())]
    return "\n".join(lines) + "\n<!-- end -->"


if __name__ == "__main__":
    PAGE.write_text(made(PAGE.read_text()))
