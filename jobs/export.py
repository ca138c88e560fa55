"""`export`: a run as a dataset for another tool."""

from cluster.export.config import ExportConfig
from cluster.export.counts import Counts
from cluster.export.driver import Export, export
from cluster.export.replica import CHANGED, GONE
from cluster.process.console import say, shown
from jobs.command import Outcome, print_lines
from jobs.flags import parse
from jobs.paths import refuse_relative

MAX_LOST = 0.02  # of the pictures, as the usual --max-error-rate of `label`


def run(arguments: list[str]) -> Outcome:
    """Export, and say what was written and what was left out; exit code 3 if pictures are lost.

    An export from which the filters took all boxes is said, and is no error.
    """
    config = parse(ExportConfig, arguments, "export", {})
    refuse_relative({"the run": config.run, "--out": config.out, "--like": config.like or "/"})
    done, record = export(config)
    print_lines(lines_of(config.out, done))
    if not done.counts.boxes:
        say(f"warning: the export has no box; {why_no_box(done.counts)}")
    images = sum(done.statuses.values())
    ok = done.statuses.get("ok", 0)
    lost = done.counts.images_left_out[GONE] + done.counts.images_left_out[CHANGED]
    is_bad = lost > MAX_LOST * (lost + done.counts.images)
    error = (
        f"{lost} of {lost + done.counts.images} pictures are not where and as the run found them" if is_bad else None
    )
    if error:
        say(f"{error}: exit code 3")
    return Outcome(
        status="lost_pictures" if is_bad else "done",
        exit_code=3 if is_bad else 0,
        images=images,
        ok=ok,
        errors=images - ok,
        boxes=done.counts.boxes,
        out=config.out,
        error=error,
        exported=done.counts.images,
        images_left_out=dict(done.counts.images_left_out),
        part=done.part,
        boxes_left_out=dict(done.counts.boxes_left_out),
        document=record,
    )


def lines_of(out: str, done: Export) -> list[str]:
    """Return what an export holds, and what it leaves out with an example."""
    counts, num_used = done.counts, len(done.counts.classes)
    splits = ", ".join(f"{count} in {split}" for split, count in counts.splits.items() if split)
    lines = [
        f"{out}: {counts.images} images{f' ({splits})' if splits else ''}, {counts.boxes} boxes",
        *([done.part] if done.part else []),
    ]
    lines += [
        f"left out: {count} images, {reason}, such as {shown(counts.examples[reason])}"
        for reason, count in counts.images_left_out.most_common()
    ]
    if 0 < num_used < done.num_classes:
        lines.append(f"{num_used} of its {done.num_classes} classes have a box; --category-ids used has these alone")
    if taken := ", ".join(
        f"{count} by {flag}" for flag, count in counts.boxes_left_out.items() if flag.startswith("-")
    ):
        lines.append(f"left out: boxes, {taken}")
    if counts.renamed:
        lines.append(
            f"{counts.renamed} images are called otherwise here, as their id cannot name a file, or another one is "
            "called so but for capitals or suffix"
        )
    if counts.rewritten:
        lines.append(f"{counts.rewritten} pictures were written anew: turned upright, or from a format that few read")
    return lines


def why_no_box(counts: Counts) -> str:
    """Return what took the boxes of an export that has none."""
    if not counts.boxes_left_out:
        return "the run has none for these images"
    reason, count = counts.boxes_left_out.most_common(1)[0]
    return f"most were taken by {reason}: {count}"
