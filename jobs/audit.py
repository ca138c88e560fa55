"""`audit`: how well a run localizes."""

import json
from typing import Any

from cluster.audit.config import AuditConfig
from cluster.audit.driver import audit
from jobs.command import Outcome
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


def run(arguments: list[str]) -> Outcome:
    """Audit, and print the table."""
    config = parse(AuditConfig, arguments, "audit", {})
    refuse_relative({"the run": config.run, "--truth": config.truth.truth or "/", "--masks": config.truth.masks or "/"})
    done = audit(config)
    print(json.dumps(done.document, indent=1) if config.json else table_of(done.document))
    images = sum(done.statuses.values())
    ok = done.statuses.get("ok", 0)
    return Outcome(images=images, ok=ok, errors=images - ok, out=config.run)


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
