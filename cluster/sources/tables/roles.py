"""Which column of a table says what: where a picture is, or the picture itself, its id, its label."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from cam_ops.documents import json_of
from cam_ops.errors import UsageError
from cam_ops.foreign import whole
from cam_ops.tables import IMAGES
from cam_ops.words import column_of, near
from cluster.process.console import say, shown
from cluster.sources.beside import Beside, beside_label
from cluster.sources.columns import Columns, column_for, shown_columns, suggestion

FEATURES_KEY = b"huggingface"
OURS = {*(name.casefold() for name in IMAGES.names), "labels"}
MAX_KEPT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """The columns of a table that a listing takes, by the table's names for them; None where there is none."""

    uri: str | None  # where a picture is; None where the table holds the pictures
    image: str | None  # the pictures themselves; None where it does not
    image_id: str | None
    label: str | None
    label_hint: str  # how to take another column as the label, where none bears the name
    kept: tuple[str, ...]
    class_names: tuple[str, ...]  # what numbers of the label mean; empty where the table does not say
    others: tuple[str, ...]  # columns that may name the class, too
    beside: Beside = field(default_factory=Beside)  # what they say, once rows are read


def roles_of(
    found: Sequence[str],
    columns: Columns,
    keep: Sequence[str],
    where: str,
    holders: Sequence[str] = (),
    features: Mapping[str, Any] | None = None,
) -> Roles:
    """Say which of the `found` columns are which; `holders` are those that may hold pictures.

    `features` are the columns as Hugging Face's metadata describe them. Raises UsageError where a column is missing
    that must be there, or two may be meant.
    """
    features = features or {}
    image = _image(found, columns, where, holders, features)
    label, named = column_for(found, "label", columns, where=where), _named(found, features)
    if label is None and len(named) == 1:
        label = named[0]  # the table itself says that it is one
    hint = " or ".join(f"--columns {shlex.quote(f'label={name}')}" for name in named[:3]) or suggestion(found, "label")
    return Roles(
        uri=None if image is not None else _uri(found, columns, where),
        image=image,
        image_id=column_for(found, "image_id", columns, where=where),
        label=label,
        label_hint="" if label is not None else hint,
        kept=tuple(_kept(found, name, where) for name in keep),
        class_names=_class_names(features, label, where),
        others=tuple(beside_label(found, label)),
    )


def _named(found: Sequence[str], features: Mapping[str, Any]) -> list[str]:
    """Return the columns that hold classes, as the table itself says."""
    return [name for name in found if _is(features, name, "ClassLabel")]


def _uri(found: Sequence[str], columns: Columns, where: str) -> str:
    uri = column_for(found, "uri", columns, ("file_name",), where=where)
    if uri is None:
        flags = suggestion(found, "uri")
        raise UsageError(
            f"expected one column uri in {where}, or one that holds pictures, found {shown_columns(found)}"
            + (f"; say which one it is: {flags}" if flags else "")
        )
    return uri


def _image(
    found: Sequence[str], columns: Columns, where: str, holders: Sequence[str], features: Mapping[str, Any]
) -> str | None:
    """Return the column that holds the pictures, None where the table says where they are."""
    if "image" in columns:
        image = column_for(found, "image", columns, where=where)
        if "uri" in columns:
            raise UsageError(
                "--columns image=... says that the table holds the pictures, uri=... where they are; give one"
            )
        if image not in holders:
            raise UsageError(f"--columns image={columns['image']}: that column of {where} holds no bytes of pictures")
        return image
    if "uri" in columns or not holders:
        return None
    typed = [name for name in holders if _is(features, name, "Image")]
    try:
        uri, named = column_of(found, ["uri"]), column_of(holders, ["image"])
    except ValueError as error:
        raise UsageError(f"cannot tell the columns of {where} apart: {error}; take one of them out") from None
    meant = [named] if named is not None else typed or list(holders)
    flags = [f"--columns image={shown(name)}" for name in meant[:3]]
    if uri in holders:
        return None
    if uri is not None:
        raise UsageError(
            f"{where} says where pictures are, in column {shown(uri)}, and holds some, in {shown_columns(meant)}; say "
            f"which ones are meant: --columns uri={shown(uri)} or {' or '.join(flags)}"
        )
    if len(meant) > 1:
        raise UsageError(f"{where} holds pictures in columns {shown_columns(meant)}; say which: {' or '.join(flags)}")
    if others := [name for name in holders if name != meant[0]]:
        say(f"{where}: the pictures are those of column {shown(meant[0])}, not {shown_columns(others)}")
    return meant[0]


def _kept(found: Sequence[str], name: str, where: str) -> str:
    try:
        column = column_of(found, [name])
    except ValueError as error:
        raise UsageError(f"--keep-columns {name}: {error}") from None
    if column is None:
        meant = near(name, found)
        raise UsageError(
            f"--keep-columns {name}: {where} has the columns {shown_columns(found)}"
            + (f"; did you mean {meant[0]}?" if meant else "")
        )
    return column


def check_kept(names: Sequence[str]) -> None:
    """Raise UsageError where columns cannot be carried along by these names."""
    folds = [name.casefold() for name in names]
    for name, fold in zip(names, folds, strict=True):
        if fold in OURS:
            raise UsageError(
                f"--keep-columns {name}: the table images has a column of that name; rename it in the file"
            )
        if not name.strip() or folds.count(fold) > 1:
            raise UsageError(f"--keep-columns expects names of columns, each once, got {shown(name)}")
    if len(names) > MAX_KEPT:
        raise UsageError(f"--keep-columns expects at most {MAX_KEPT} columns, got {len(names)}")


def holders_of(schema: pa.Schema) -> list[str]:
    """Return the columns that may hold pictures: bytes, or Hugging Face's images, structs of bytes and path."""
    features = features_of(schema)
    kinds = {field.name: features.get(field.name) for field in schema}
    return [
        field.name
        for field in schema
        if bytes_of(field.type) and (_is(features, field.name, "Image") or not _is_other(kinds[field.name]))
    ]


def bytes_of(kind: pa.DataType) -> pa.DataType | None:
    """Return the type of the bytes in a column of pictures, None where it is of another type."""
    if pa.types.is_struct(kind):
        at = kind.get_field_index("bytes")
        return None if at < 0 or pa.types.is_struct(kind.field(at).type) else bytes_of(kind.field(at).type)
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    return kind if is_bytes else None


def features_of(schema: pa.Schema) -> dict[str, Any]:
    """Return what Hugging Face's metadata say of a table's columns, nothing where there are none."""
    try:
        features = json_of((schema.metadata or {}).get(FEATURES_KEY, b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _is(features: Mapping[str, Any], name: str, kind: str) -> bool:
    return _feature(features, name).get("_type") == kind


def _feature(features: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what is said of a column's values, or of those in its lists."""
    feature = features.get(name)
    if isinstance(feature, list):
        feature = feature[0] if len(feature) == 1 else None
    elif isinstance(feature, dict) and "feature" in feature:
        feature = feature["feature"]
    return feature if isinstance(feature, dict) else {}


def _is_other(feature: Any) -> bool:
    """Say whether a feature is of something that is no picture, such as sound."""
    return isinstance(feature, dict) and feature.get("_type") not in (None, "Value", "Image")


def _class_names(features: Mapping[str, Any], label: str | None, where: str) -> tuple[str, ...]:
    if label is None or not _is(features, label, "ClassLabel"):
        return ()
    names = _feature(features, label).get("names")
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        return ()
    names = [whole(name) for name in names]
    if twice := _twice(names):
        raise UsageError(f"the metadata of {where} name the class {shown(twice)} of {label} twice; mend them")
    return tuple(names)


def _twice(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


def check_columns(schema: pa.Schema, roles: Roles, where: str, constant: Mapping[str, object]) -> None:
    """Raise UsageError where a further file of a table has not the columns that its first file has."""
    for name in (roles.uri, roles.image, roles.image_id, roles.label, *roles.kept):
        if name is not None and name not in constant and schema.names.count(name) != 1:
            raise UsageError(
                f"expected one column {name} in {where}, as in the first file, found {shown_columns(schema.names)}"
            )
    if roles.image is not None and roles.image not in holders_of(schema):
        raise UsageError(f"expected bytes of pictures in column {roles.image} of {where}, as in the first file")
    label = None if roles.label in constant else roles.label
    if label and _class_names(features_of(schema), label, where) != roles.class_names:
        raise UsageError(f"the metadata of {where} name other classes than the first file's; give files of one kind")
