"""`audit`: how well a run localizes."""

from typing import Any

from cluster.audit.config import AuditConfig
from cluster.audit.driver import audit
from cluster.audit.files import LABELS_FILE
from cluster.runs.names import audit_folder
from jobs.command import Outcome, print_lines
from jobs.flags import parse
from jobs.paths import refuse_relative

SHOWN = (
    "max_box_acc",
    "max_box_acc_v2",
    "box_acc_calibrated",
    "box_acc_v2_calibrated",
    "box_acc_oracle",
    "centre_box",
    "whole_image",
    "px_ap",
    "px_ap_box_filled",
    "gt_known_loc",
    "top1_loc",
    "top5_loc",
    "corloc",
    "mean_best_iou",
    "pointing_game",
    "energy_pointing_game",
    "reachable_50",
    "reachable_70",
    "ap",
    "ap_50",
    "instance_precision",
    "instance_recall",
)
"""In the order of the table; metrics.json has the others."""

CURES = {
    "not in the truth": "is it the truth of these images?",
    "no true box or mask": "give a --truth that has some",
    "true class unknown": "label the run (--labels), or say with --class-map what the truth's words mean",
    "no map of the true class": "label the run, so that --classes label maps the true class",
    "mask unreadable": "mend the masks",
}
"""By the reason why most images are in no figure."""


def run(arguments: list[str]) -> Outcome:
    """Audit, and print the table; exit code 3 if nothing in it has a value."""
    config = parse(AuditConfig, arguments, "audit", {})
    refuse_relative({"the run": config.run, "--truth": config.truth.truth or "/", "--masks": config.truth.masks or "/"})
    done = audit(config)
    document = done.document
    print_lines([*([document["part"]] if document["part"] else []), *unlabelled_lines(document)])
    print_lines(table_of(document).splitlines())
    images = sum(done.statuses.values())
    ok = done.statuses.get("ok", 0)
    why = why_no_figure(document, done.statuses)
    return Outcome(
        status="no_figure" if why else "done",
        exit_code=3 if why else 0,
        images=images,
        ok=ok,
        errors=images - ok,
        out=config.run,
        error=why,
        part=document["part"],
        document=document,
    )


def unlabelled_lines(document: dict[str, Any]) -> list[str]:
    """Return what it means that the run has no labels, or not all, and the cure; nothing where that is no matter."""
    found = document["unlabelled"]
    if found is None:
        return []
    whose = "the run has no labels: its"
    if found["images"] < found["in_truth"]:
        whose = f"{found['images']} of the {found['in_truth']} images of the truth have no label in the run: their"
    maps = f"{whose} maps are of the classes that the network predicts, right or wrong"
    if not found["known"]:
        return [f"{maps}; the truth names no classes of the network, so such images are in no figure of maps and boxes"]
    folder = f"{document['out']}/{audit_folder(document['name'])}"
    flatters = f", and leave out {found['left_out']} that it took for another: they flatter"
    return [
        f"{maps}; the figures have the {found['audited']} whose true class it predicted"
        + (flatters if found["left_out"] else ""),
        f"for figures of all give them labels: `label` with --labels {folder}/{LABELS_FILE}, which has the truth's "
        "classes, and another --out",
    ]


def why_no_figure(document: dict[str, Any], statuses: dict[str, int]) -> str | None:
    """Return why nothing of the audit has a value, None where something has."""
    metrics, excluded = document["metrics"], document["excluded"]
    if any(figure["value"] is not None for figure in metrics.values()):
        return None
    if document["truth"] is None:
        shown = ", ".join(f"{count} {status}" for status, count in statuses.items())
        return (
            None if document["signals"]["images"] else f"the run has no map to say anything of: its images are {shown}"
        )
    if not excluded:
        return f"no figure has a value: {next(iter(metrics.values()))['reason']}"
    counts = sorted(excluded.items(), key=lambda entry: -entry[1])
    shown = ", ".join(f"{count} {reason}" for reason, count in counts)
    cure = CURES.get(counts[0][0], "see the column error of images/")
    return f"no figure has a value: of {document['images']} images {shown}; {cure}"


def table_of(document: dict[str, Any]) -> str:
    """Return the figures as lines, each with its interval and the number of its images."""
    lines = [f"{'figure':22} {'value':>7} {'95 % interval':>17} {'images':>9}"]
    metrics = document["metrics"]
    for name in (name for name in SHOWN if name in metrics):
        figure = metrics[name]
        if figure["value"] is None:
            lines.append(f"{name:22} {'-':>7} {figure['reason']}")
            continue
        interval = "" if figure["low"] is None else f"{figure['low']:.1f} to {figure['high']:.1f}"
        thresholds = figure.get("threshold", [])
        shown = " ".join(map(str, thresholds if isinstance(thresholds, (list, tuple)) else [thresholds]))
        at = f"  at {shown}" if shown else ""
        lines.append(f"{name:22} {figure['value']:7.1f} {interval:>17} {figure['images']:9}{at}")
    lines = lines if metrics else []
    for title, counts in (("not audited", document["excluded"]), ("failures", document["failures"])):
        if shown := ", ".join(f"{count} {name}" for name, count in counts.items() if count):
            lines.append(f"{title}: {shown}")
    signals = document["signals"]
    lines.append(
        f"maps: {signals['images']}; {signals['without_box']} without a box, "
        f"{signals['whole_image_boxes']} with one of the whole picture"
    )
    for shortcut in document["suspected_shortcuts"]:
        lines.append(
            f"suspected shortcut: {shortcut['class_name']!r} looks at the {shortcut['place']}: {shortcut['share']:.0%} "
            f"of its {shortcut['num_images']} maps' mass lies there, of other classes' {shortcut['others']:.0%}"
        )
    first = ", ".join(repr(row["image_id"]) for row in document["look_first"][:5])
    lines += [f"look first at: {first}"] if first else []
    return "\n".join(lines)
