"""The source or sources that --images names: one listing of all, without what is not asked for.

Ids of one source are its own. Those of several begin with what tells the sources apart: as many of the last parts of
their addresses as it takes. Where ids begin with the name of the source's own file anyway, it stands there once.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from cam_ops.errors import NoPictures, UsageError
from cam_ops.tables import LISTING
from cluster.process.console import say, shown
from cluster.sources.beside import Beside
from cluster.sources.choosing import EVERY_IMAGE, Choice, Chooser
from cluster.sources.folders.folder import check_folder
from cluster.sources.folders.patterns import WILDCARDS, braced, distinct, fixed_part, found_by, is_literal
from cluster.sources.folders.picture import PICTURE
from cluster.sources.kinds import is_any_folder, kind_of, open_listing, source_address
from cluster.sources.listing import Listing, Remarks, remark, say_remarks
from cluster.sources.sorting import sorted_listing
from cluster.sources.source import EVERYTHING, Asked, Source
from cluster.storage.objects import check_prefix, is_store
from cluster.storage.options import StorageOptions

EMPTY = "folders that --images matches hold no picture, and are left out"
MAX_WORDS = 10_000  # of --images; they stand in run.json
BESIDE = "files that are no pictures lie beside what --images matches, and are left out"


def source_addresses(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the addresses that --images names. Raises UsageError where there are none, or one is there twice."""
    if not 0 < len(texts) <= MAX_WORDS:
        raise UsageError(
            f"--images expects 1 to {MAX_WORDS} sources, got {len(texts)}" + "; put them into a list" * bool(texts)
        )
    addresses = tuple(map(source_address, texts))
    _refuse_twice(addresses)
    return addresses


def own_word(addresses: Sequence[str]) -> str:
    """Return the word for the labels that the sources have themselves, none where they have none.

    Raises UsageError where some have labels of one kind, others of another, or none.
    """
    words = {_own_word(kind_of(one)): one for address in addresses for one in _alternatives(address)}
    if len(words) > 1:
        (_, one), (_, other), *_ = words.items()
        raise UsageError(
            f"--images names sources of several kinds, {shown(one)} and {shown(other)}, whose labels stand in "
            "different places; make a run of each kind"
        )
    return next(iter(words))


def _alternatives(address: str) -> list[str]:
    return braced(address) if is_any_folder(address) and not is_literal(address) else [address]


def _own_word(kind: Source) -> str:
    return kind.own_labels.word if kind.own_labels else "none"


def columns_of(addresses: Sequence[str]) -> frozenset[str]:
    """Return the columns that --columns may name, of all sources."""
    return frozenset.intersection(*(kind_of(address).columns for address in addresses))


def no_folders(addresses: Sequence[str]) -> str:
    """Return why ids have no folders that name classes, empty where they have."""
    return next((why for address in addresses if (why := kind_of(address).no_folders)), "")


def root_of(addresses: Sequence[str]) -> str:
    """Return the address that ids are paths below, or all of them where it is not one."""
    if len(addresses) == 1:
        return addresses[0]
    roots = {
        address.removesuffix(f"/{name[:-1]}") for address, name in zip(addresses, distinct(addresses), strict=True)
    }
    return roots.pop() if len(roots) == 1 else " and ".join(addresses)


def check_sources(addresses: Sequence[str], options: StorageOptions) -> None:
    """Raise StorageError unless what is planned from the sources can be reached from here."""
    for address in addresses:
        if is_literal(address) or not is_any_folder(address):
            kind_of(address).check(address, options)
        elif is_store(address):
            check_prefix(fixed_part(address), options)
        else:
            check_folder(fixed_part(address) or "/")


@contextmanager
def open_sources(
    addresses: Sequence[str], asked: Asked = EVERYTHING, choice: Choice = EVERY_IMAGE
) -> Iterator[Listing]:
    """List the images of sources that are asked for, the first `asked.limit` of these by id, until the context ends.

    Raises UsageError and StorageError as the kinds of sources do, and where nothing is left.
    """
    found = _found(addresses, asked)
    if choice.is_everything:
        with _opened(found, asked) as listing:
            yield listing
        return
    with (
        _opened(found, replace(asked, limit=None)) as whole,
        chosen_from(whole, root_of(addresses), choice, asked.limit) as listing,
    ):
        yield listing


@contextmanager
def chosen_from(whole: Listing, root: str, choice: Choice, limit: int | None) -> Iterator[Listing]:
    """List the images of another listing that are asked for, the first `limit` of them, until the context ends.

    Raises UsageError where none is left.
    """
    chooser = Chooser(choice=choice)
    with sorted_listing(root, chooser.chosen(whole.batches()), limit, schema_of(whole)) as chosen:
        chooser.say()
        yield replace(whole, num_images=chosen.num_images, batches=chosen.batches)


def _found(addresses: Sequence[str], asked: Asked) -> dict[str, bool]:
    """Return the sources that the words of --images mean, in no order, and whether a wildcard found them."""
    found: list[tuple[str, bool]] = []
    remarks: Remarks = {}
    for address in addresses:
        if is_literal(address):
            found.append((address, False))
        elif kind_of(address).takes_wildcards(address):
            found += [(one, False) for one in braced(address)]
        else:
            for match, is_file in found_by(address, asked.options).items():
                if is_file and is_any_folder(address) and kind_of(match) is not PICTURE:
                    remark(remarks, BESIDE, shown(match))
                elif match != asked.skip:
                    found.append((match, bool(WILDCARDS & set(address))))
    say_remarks("--images", remarks)
    if not found:
        raise UsageError(f"--images {' '.join(addresses)} matches no folder and no picture; check it")
    places = [address for address, _ in found]
    _refuse_twice(places)
    _refuse_nested(places)
    if len(places) > 1:
        _refuse_twice([file for place in places for file in _files(place, asked.options)])
    if own_word(places) != own_word(addresses):
        say(
            f"--images {' '.join(addresses)}: what it matches may have labels of its own, which are taken only where "
            f"each source is named, such as {shown(places[0])}"
        )
    return dict(found)


def _files(address: str, options: StorageOptions) -> list[str]:
    """Return the files that an address with wildcards means, itself where it is another one."""
    files = kind_of(address).files
    return [address] if files is None or is_literal(address) else files(address, options)


def _refuse_twice(addresses: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for address in addresses:
        other = seen.setdefault(_place(address), address)
        if other is not address:
            same = "" if other == address else f", as {shown(other)} and as {shown(address)}"
            raise UsageError(f"--images names {shown(address)} twice{same}; its images would be there twice")


def _refuse_nested(addresses: Sequence[str]) -> None:
    known = {_place(address): address for address in addresses}
    for place, address in known.items():
        above = os.path.dirname(place)
        while above and above != os.path.dirname(above):
            if above in known:
                raise UsageError(
                    f"--images names {shown(known[above])} and {shown(address)} inside it, whose images would be there "
                    "twice; give one of them"
                )
            above = os.path.dirname(above)


def _place(address: str) -> str:
    """Return where a source lies, whatever links lead there."""
    return address if is_store(address) else os.path.realpath(address)


def _opened(found: Mapping[str, bool], asked: Asked) -> AbstractContextManager[Listing]:
    addresses = list(found)
    kinds = [kind_of(address) for address in addresses]
    if len(found) == 1:
        return open_listing(addresses[0], asked)
    together = kinds[0].together
    if together and all(kind.together is together for kind in kinds):
        return together(addresses, asked)
    return _joined(found, asked)


@contextmanager
def _joined(found: Mapping[str, bool], asked: Asked) -> Iterator[Listing]:
    """List several sources as one; what a wildcard found and holds no picture is left out."""
    with ExitStack() as opened:
        by_address: dict[str, Listing] = {}
        remarks: Remarks = {}
        for number, (address, is_match) in enumerate(found.items(), 1):
            try:
                by_address[address] = opened.enter_context(open_listing(address, asked))
            except NoPictures:
                if not is_match or (number == len(found) and not by_address):
                    raise
                remark(remarks, EMPTY, shown(address))
        say_remarks("--images", remarks)
        sources, listings = list(by_address), list(by_address.values())
        first = listings[0]
        for address, listing in by_address.items():
            if not listing.kept.equals(first.kept) or listing.class_names != first.class_names:
                raise UsageError(
                    f"{address} has other columns or another list of classes than {sources[0]}; make a run of each"
                )
        names, beside = distinct(sources), Beside()
        for one in listings:
            beside.add(one.beside)
        listing = replace(
            first,
            has_labels=any(listing.has_labels for listing in listings),
            label_hint=next((listing.label_hint for listing in listings if listing.label_hint), ""),
            num_parts=names[0].count("/"),
            beside=beside,
        )
        schema = schema_of(listing)
        prefixes = [_prefix(name, address, one) for name, address, one in zip(names, sources, listings, strict=True)]
        batches = (
            _prefixed(batch, prefix, schema)
            for prefix, one in zip(prefixes, listings, strict=True)
            for batch in one.batches()
        )
        with sorted_listing(root_of(sources), batches, asked.limit, schema) as joined:
            _refuse_same_ids(joined, sources)
            yield replace(listing, num_images=joined.num_images, batches=joined.batches)


def _refuse_same_ids(listing: Listing, found: Sequence[str]) -> None:
    last: str | None = None
    for batch in listing.batches():
        ids = pa.chunked_array([pa.array([last], pa.string()), batch["image_id"].cast(pa.string())]).combine_chunks()
        at = pc.index(pc.equal(ids[1:], ids[:-1]), True).as_py()
        if at >= 0:
            raise UsageError(
                f"--images {' '.join(found[:5])}: two pictures would be called {shown(ids[at].as_py())}, or one is "
                "there twice; give each file or folder once, by one pattern, or make a run of each"
            )
        last = ids[-1].as_py()


def _prefix(name: str, address: str, listing: Listing) -> str:
    """Return what a source's ids get before them, whose name is `name`."""
    is_folder = not is_store(address) and os.path.isdir(address)
    return name[: name[:-1].rfind("/") + 1] if listing.names_files and not is_folder else name


def _prefixed(batch: pa.RecordBatch, prefix: str, schema: pa.Schema) -> pa.RecordBatch:
    columns = {name: batch[name] for name in batch.schema.names}
    columns["image_id"] = pc.binary_join_element_wise(prefix, batch["image_id"], "")
    nothing = pa.nulls(len(batch), pa.string())
    return pa.record_batch([columns.get(name, nothing) for name in schema.names], schema=schema)


def schema_of(listing: Listing) -> pa.Schema:
    """Return the columns of a listing's batches."""
    label = [pa.field("label", pa.string())] if listing.has_labels else []
    return pa.schema([*LISTING, *label, *listing.kept])
