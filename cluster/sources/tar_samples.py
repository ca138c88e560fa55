"""What belongs together in a tar file: pictures, and the labels and notes beside them, by WebDataset's names.

A member is called ``KEY.KIND``, the kind being all that follows the first dot of its last part; members of one key that
follow each other are a sample. Pictures are the kinds that are suffixes of pictures in folders, too; where a sample has
none of these, the kinds that end in one: ``a.b.jpg``. The member `cls` beside a picture is its label, that of a picture
``a.b.jpg`` also ``a.b.cls``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby

from cam_ops.pictures.formats import format_named, read_suffixes, suffix_of
from cluster.process.console import shown
from cluster.sources.folders.names import is_hidden_file, is_hidden_folder, remark_unread
from cluster.sources.listing import Remarks, image_id_of, remark
from cluster.sources.tar_members import BadTar, Member
from cluster.storage.objects import is_plain

LABEL, NOTES = "cls", "json"
NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)", re.DOTALL)
_LEADING = re.compile(r"^(\./+)+")  # as `tar cf x.tar .` writes

HIDDEN = "members that are hidden, or of systems and file managers, are left out"
OTHER = "members of other kinds are left out"
NO_FILE = "members named as pictures, cls or json are links, folders, devices or sparse, and are left out"
APART = "keys come again after others: what lies apart is not put together; `tar --sort=name` packs it in order"
SEVERAL = "keys have several pictures, each of them an image"
BARE = "keys have no picture"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A picture and what lies beside it, or what lies beside none."""

    key: str  # the picture's name without its suffix, in ids
    name: str
    picture: Member | None
    label: Member | None  # `cls`
    notes: Member | None  # `json`


def key_and_kind(name: str) -> tuple[str, str] | None:
    """Return a member's key and its kind, in small letters; None where it has none, as `.hidden` and `README`."""
    found = NAME.fullmatch(name)
    return (found[1], found[2].lower()) if found else None


def samples(prefix: str, members: Iterator[Member], remarks: Remarks) -> Iterator[Sample]:
    """Yield each picture with what lies beside it: members of one key, as long as no other key comes between."""
    seen: set[bytes] = set()
    for key, group in groupby(named_members(prefix, members, remarks), key=lambda named: named[0]):
        digest = blake2b(key.encode(), digest_size=16).digest()  # keys may be long
        if digest in seen:
            remark(remarks, APART, shown(prefix + key))
        seen.add(digest)
        yield from _samples(prefix, key, [(kind, name, member) for _, kind, name, member in group], remarks)


def _samples(prefix: str, key: str, group: list[tuple[str, str, Member]], remarks: Remarks) -> Iterator[Sample]:
    """Yield the samples of one key of WebDataset's, which are several where names have dots: ``a.b.jpg``, ``a.c.jpg``.

    Beside a picture ``a.jpg`` such names are pictures of their own only with a label of their own: ``a.seg.png`` is
    none.
    """
    beside: dict[str, Member] = {}
    for kind, _, member in group:
        last = kind.rpartition(".")[2]
        if last in (LABEL, NOTES):
            if kind in beside:
                raise BadTar(f"has two members {kind} of the key {shown(key)}")
            beside[kind] = member
    pictures = [entry for entry in group if entry[0].rpartition(".")[2] in read_suffixes()]
    plain = [entry for entry in pictures if "." not in entry[0]]
    taken = [entry for entry in pictures if not plain or entry in plain or f"{_stem(entry[0])}{LABEL}" in beside]
    for _, name, _ in (entry for entry in pictures if entry not in taken):
        remark(remarks, OTHER, shown(prefix + name))
    if not taken:
        remark(remarks, BARE, shown(prefix + key))
        yield Sample(key=key, name=key, picture=None, label=beside.get(LABEL), notes=beside.get(NOTES))
    stems = {_stem(kind) for kind, _, _ in taken}
    if len(taken) > (1 if LABEL in beside and not plain else len(stems)):
        remark(remarks, SEVERAL, shown(prefix + key))
    for kind, name, member in taken:
        stem = _stem(kind)
        if stem and not plain and {LABEL, stem + LABEL} <= beside.keys():
            raise BadTar(
                f"has two labels for {shown(name)}: {shown(f'{key}.{LABEL}')} and {shown(f'{key}.{stem}{LABEL}')}"
            )
        shared = not (stem and plain)
        yield Sample(
            key=name.rpartition(".")[0],
            name=name,
            picture=member,
            label=beside.get(stem + LABEL) or (beside.get(LABEL) if shared else None),
            notes=beside.get(stem + NOTES) or (beside.get(NOTES) if shared else None),
        )


def _stem(kind: str) -> str:
    """Return a kind but for its last part: `b.` of `b.jpg`, nothing of `jpg`."""
    return kind[: kind.rfind(".") + 1]


def named_members(prefix: str, members: Iterator[Member], remarks: Remarks) -> Iterator[tuple[str, str, str, Member]]:
    """Yield key, kind and name, as they stand in ids, of each regular file that has a key."""
    for member in members:
        name = image_id_of(_LEADING.sub("", member.name))
        key, kind = key_and_kind(name) or ("", "")
        if _is_hidden(name):
            if member.is_file:
                remark(remarks, HIDDEN, shown(prefix + name))
            continue
        last = kind.rpartition(".")[2]
        is_wanted = last in read_suffixes() or last in (LABEL, NOTES)
        if not is_wanted and member.is_file:
            _remark_other(remarks, prefix + name)
        elif is_wanted and not member.is_file:
            remark(remarks, NO_FILE, shown(prefix + name))
        elif is_wanted and (not is_plain(name) or "\0" in name):
            raise BadTar(f"has a member {shown(name)}, whose name is absolute, has empty, . or .. parts, or a NUL")
        if key and member.is_file:
            yield key, kind, name, member


def _is_hidden(name: str) -> bool:
    """Say whether a member lies in a hidden folder, or is hidden itself; `.` and `..` hide nothing."""
    *folders, file = (part for part in ["", *name.split("/")] if part not in (".", ".."))
    return is_hidden_file(file) or any(map(is_hidden_folder, folders))


def _remark_other(remarks: Remarks, where: str) -> None:
    """Note a member that is none of the wanted kinds."""
    suffix = suffix_of(where)
    form = format_named(suffix)
    if form and suffix not in read_suffixes():
        remark_unread(remarks, f".{suffix}", form, where)
    else:
        remark(remarks, OTHER, shown(where))
