"""`label`: the main job."""

import os
from dataclasses import replace

from cam_ops.network.names import absolute_factory
from cluster.label.config import LabelConfig
from cluster.label.driver import label
from cluster.runs.census import Census
from jobs.command import Outcome, outcome_of
from jobs.findings import findings_document, print_findings, reason_text
from jobs.flags import parse, shown_line
from jobs.interrupted import interrupted_run
from jobs.paths import in_ray_job, refuse_relative

NAMED_REASONS = 3


def run(arguments: list[str]) -> Outcome:
    """Label the images; exit code 3 if more of them are bad than --max-error-rate."""
    config = parse(LabelConfig, arguments, "label")
    for images in config.images:
        refuse_relative({"--images": images})
    refuse_relative({"--out": config.out})
    if not in_ray_job():
        config = _with_absolute_paths(config)
    try:
        census = label(config, shown_line("label", arguments))
    except KeyboardInterrupt:
        return interrupted_run(config.out, config.options)
    totals = census.totals
    rate = totals.errors / totals.images
    too_bad = rate > config.max_error_rate
    print_findings(config.out, census)
    return outcome_of(
        totals,
        config.out,
        status="too_many_bad_images" if too_bad else "done",
        exit_code=3 if too_bad else 0,
        error=_why_too_bad(config, census) if too_bad else None,
        document={"out": config.out, **findings_document(census)},
    )


def _why_too_bad(config: LabelConfig, census: Census) -> str:
    rate = census.totals.errors / census.totals.images
    reasons = "; ".join(reason_text(reason) for reason in census.reasons[:NAMED_REASONS])
    return f"{rate:.1%} of the images are bad, --max-error-rate is {config.max_error_rate:.1%}: {reasons}"


def _with_absolute_paths(config: LabelConfig) -> LabelConfig:
    """Make --weights, and a factory's file, mean the same in replicas elsewhere; in a Ray job they share its folder."""
    weights, model = config.model.weights, absolute_factory(config.model.model)
    if weights not in (None, "DEFAULT", "random"):
        weights = os.path.abspath(weights)
    return replace(config, model=replace(config.model, model=model, weights=weights))
