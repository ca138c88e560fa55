"""`status`: progress of a run from its files alone."""

from dataclasses import dataclass, field

import tyro.conf

from cluster.runs.census import take_census
from cluster.runs.directory import open_run_dir
from cluster.runs.names import SUSPECTS
from cluster.runs.record import existing_run
from cluster.storage.options import parse_options
from jobs.command import Outcome, outcome_of
from jobs.findings import agreement_lines, findings_document, reason_lines
from jobs.flags import parse


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusConfig:
    """Say how far a run is, from its files alone, without Ray."""

    out: tyro.conf.Positional[str]
    """Run directory."""
    json: bool = False
    """Print one JSON document to stdout; CAMRAY_RESULT goes to stderr."""
    storage_options: tuple[str, ...] = field(default=(), repr=False)
    """KEY=VALUE ... to reach s3:// and gs://, as of `label`."""


def run(arguments: list[str]) -> Outcome:
    """Print shards, images and boxes so far; status is `incomplete` until every shard is committed."""
    config = parse(StatusConfig, arguments, "status")
    run_dir = open_run_dir(config.out, parse_options(config.storage_options))
    state = existing_run(run_dir)
    committed = sorted(shard for shard in run_dir.shards("images") if shard < state.plan.num_shards)
    census = take_census(run_dir, state, committed)
    totals = census.totals
    num_shards, num_images = state.plan.num_shards, state.plan.num_images
    print(f"model   {state.request.model}, {state.request.device}, {state.request.precision}")
    if state.maps_from:
        print(f"maps of {state.maps_from.root}")
    print(f"shards  {len(committed)} of {num_shards} committed")
    print(f"images  {totals.images} of {num_images} ({100 * totals.images / num_images:.1f} %)")
    for status, count in totals.statuses.items():
        print(f"        {count} {status}")
    labelled = census.agreement.labelled if census.agreement else 0
    print(f"labels  {f'of {labelled} images' if labelled else 'none'}")
    print(f"maps    {totals.maps}, of {census.mapped} images")
    print(f"boxes   {totals.boxes}")
    out = config.out if run_dir.exists(SUSPECTS) else None
    for line in (*reason_lines(census.reasons), *agreement_lines(out, census)):
        print(line)
    shards = {"shards": num_shards, "shards_committed": len(committed), "images_planned": num_images}
    return outcome_of(
        totals,
        config.out,
        status="done" if len(committed) == num_shards else "incomplete",
        document={"out": config.out, **shards, **findings_document(census)},
    )
