"""`--like`: the ids that another dataset, COCO's instances, has for a run's images and classes."""

from collections import defaultdict
from collections.abc import Mapping

from cam_ops.errors import UsageError
from cluster.formats.coco import read_ids
from cluster.formats.exported import Like
from cluster.process.console import say, shown
from cluster.runs.directory import RunDir
from cluster.runs.plan import read_shard
from cluster.runs.record import Run
from cluster.sources.labels.files import digest_of as content_digest
from cluster.truth.classes import class_finder

ENOUGH = 2  # images of a name to say that it is not of one


def digest_of(path: str) -> str:
    """Return the sha256 of a file: who edits it asks for another export. Raises UsageError where it cannot be read."""
    try:
        return content_digest(path)
    except OSError as error:
        raise UsageError(f"cannot read --like {path}: {error.strerror or error}; give another --like") from None


def read_like(path: str, run_dir: RunDir, run: Run) -> Like:
    """Read the ids of a file: categories by name, images by the whole name, or by one that ends with the other's.

    Raises UsageError where no image has one, or two have the same.
    """
    ids = read_ids(path)
    names = _names(ids.images, run_dir, run, path)
    find = class_finder(run.class_names, ())
    categories: dict[int, int] = {}
    unknown = []
    for name, category in ids.categories.items():
        class_ids = find(name)
        if len(class_ids) > 1:
            raise UsageError(f"--like {path}: the category {shown(name)} may be the classes {class_ids} of the run")
        if not class_ids:
            unknown.append(name)
        elif categories.setdefault(class_ids[0], category) != category:
            raise UsageError(f"--like {path}: two categories are the class {shown(run.class_names[class_ids[0]])}")
    if not categories:
        raise UsageError(
            f"--like {path}: none of its categories is a class of the run, such as "
            f"{shown(next(iter(ids.categories), ''))}"
        )
    if unknown:
        say(f"--like: {len(unknown)} of its categories are no classes of the run, such as {shown(unknown[0])}")
    return Like(
        images={image_id: ids.images[name] for image_id, name in names.items()},
        categories=categories,
        sizes={image_id: ids.sizes[name] for image_id, name in names.items()},
    )


def _names(known: Mapping[str, int], run_dir: RunDir, run: Run, path: str) -> dict[str, str]:
    """Return the names there of the run's images."""
    by_last: dict[str, list[str]] = defaultdict(list)
    for name in known:
        by_last[name.rpartition("/")[2]].append(name)
    exact: dict[str, str] = {}
    ended: dict[str, list[str]] = defaultdict(list)  # by the file's name
    for shard in range(run.plan.num_shards):
        for image_id in read_shard(run_dir, shard)["image_id"].to_pylist():
            if image_id in known:
                exact[image_id] = image_id
                continue
            names = by_last.get(image_id.rpartition("/")[2], [])
            if len(names) == 1 and _is_end(names[0], image_id) and len(ended[names[0]]) < ENOUGH:
                ended[names[0]].append(image_id)
    taken = {*exact.values()}
    for name, image_ids in ended.items():
        if name in taken:
            continue
        if len(image_ids) == ENOUGH:
            raise UsageError(
                f"--like {path}: its image {shown(name)} may be {shown(image_ids[0])} or {shown(image_ids[1])} of the "
                "run; name images there as the run does"
            )
        exact[image_ids[0]] = name
    if not exact:
        raise UsageError(
            f"--like {path}: none of its images, such as {shown(next(iter(known), ''))}, is one of the run; are "
            "they the same pictures?"
        )
    return exact


def _is_end(one: str, other: str) -> bool:
    """Say whether one path ends with the other: of `a/1.jpg` and `b/1.jpg` none does."""
    return f"/{one}".endswith(f"/{other}") or f"/{other}".endswith(f"/{one}")
