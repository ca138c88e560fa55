"""A page of at most 12 MB, whatever names, boxes and maps the run has."""

from dataclasses import replace

from cam_ops.errors import StorageError
from cluster.process.console import say
from cluster.report.page import render
from cluster.report.records import Gallery, Report

MAX_BYTES = 12_000_000
ROOM = 0.95  # of what seems to fit, as images differ


def bounded(page: Report) -> tuple[Report, bytes]:
    """Return a page with as many of its first images as fit, and its bytes; says how many are left out.

    Raises StorageError where it is too large without any.
    """
    content = render(page).encode()
    while len(content) > MAX_BYTES and page.cards:
        fitting = int(ROOM * len(page.cards) * MAX_BYTES / len(content))
        page = with_first(page, min(fitting, len(page.cards) - 1))
        content = render(page).encode()
    if len(content) > MAX_BYTES:
        raise StorageError(
            f"the page of {page.head.root} would have {len(content)} bytes without any picture, at most {MAX_BYTES} "
            "are written: look for long texts in its run.json"
        )
    if page.left_out:
        say(f"{page.left_out} of {page.left_out + len(page.cards)} images are left out, as the page would exceed 12 MB")
    return page, content


def with_first(page: Report, count: int) -> Report:
    """Return a page of its first images alone; galleries of others are left out."""
    galleries = [gallery for each in page.galleries if (gallery := _first_of(each, count)).cards]
    against = page.against
    if against:
        kept = dict.fromkeys(other for gallery in galleries for other in gallery.others)
        place = {other: at for at, other in enumerate(kept)}
        against = replace(against, cards=tuple(against.cards[other] for other in kept))
        galleries = [replace(each, others=tuple(place[other] for other in each.others)) for each in galleries]
    return replace(
        page,
        galleries=tuple(galleries),
        cards=page.cards[:count],
        left_out=page.left_out + len(page.cards[count:]),
        against=against,
    )


def _first_of(gallery: Gallery, count: int) -> Gallery:
    kept = [at for at, number in enumerate(gallery.cards) if number < count]
    return replace(
        gallery,
        cards=tuple(gallery.cards[at] for at in kept),
        others=tuple(gallery.others[at] for at in kept) if gallery.others else (),
    )
