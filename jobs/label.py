"""`label`: the main job."""

import os
from dataclasses import replace

from cam_ops.errors import UsageError
from cluster.interrupts import raise_on_sigterm
from cluster.labelling import LabelConfig, label
from jobs.command import Outcome, outcome_of
from jobs.flags import parse

JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it for the driver of `ray job submit`


def run(arguments: list[str]) -> Outcome:
    """Label the images; exit code 3 if more of them are bad than --max-error-rate."""
    raise_on_sigterm()
    config = parse(LabelConfig, arguments, "label")
    if JOB_VARIABLE in os.environ:
        _refuse_relative(config)
    else:
        config = _with_absolute_weights(config)
    totals = label(config)
    rate = totals.errors / totals.images
    too_bad = rate > config.max_error_rate
    _print_totals(config.out, totals.statuses, totals.maps, totals.boxes)
    return outcome_of(
        totals,
        config.out,
        status="too_many_bad_images" if too_bad else "done",
        exit_code=3 if too_bad else 0,
        error=f"{rate:.1%} of the images are bad, --max-error-rate is {config.max_error_rate:.1%}" if too_bad else None,
    )


def _refuse_relative(config: LabelConfig) -> None:
    for flag, path in (("--images", config.images), ("--out", config.out)):
        if "://" not in path and not os.path.isabs(path):
            raise UsageError(
                f"{flag} {path} is relative: inside a Ray job it would lie in Ray's temporary copy of the working "
                "directory; give an absolute path that every node sees"
            )


def _with_absolute_weights(config: LabelConfig) -> LabelConfig:
    """Make --weights mean the same file in workers that have another working directory; in a Ray job they share it."""
    weights = config.model.weights
    if weights in (None, "DEFAULT", "random"):
        return config
    return replace(config, model=replace(config.model, weights=os.path.abspath(weights)))


def _print_totals(out: str, statuses: dict[str, int], maps: int, boxes: int) -> None:
    counts = ", ".join(f"{count} {status}" for status, count in statuses.items())
    print(f"{out}: {counts}; {maps} maps, {boxes} boxes")
