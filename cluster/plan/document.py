"""What `plan` says, as one document: plain numbers, texts, lists and objects of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cluster.label.settled import Survey
from cluster.plan.estimate import Ends, Forecast, Interval, Pending, Speed, core_share
from cluster.plan.findings import Bad, Findings, Headers
from cluster.runs.record import Run

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """What --out holds."""

    holds: str
    run: Run | None = None  # one that would be resumed
    pending: tuple[int, ...] = ()  # its shards that are not committed
    refusal: str | None = None  # what `label` would say and end with
    num_removed: int = 0  # committed shards that --overwrite would remove

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.run is not None and not self.pending

    def left(self) -> Pending:
        """Return what is left of the run."""
        assert self.run
        plan = self.run.plan
        rest = plan.num_images % plan.shard_size if plan.num_shards - 1 in self.pending else 0
        return Pending(shard_size=plan.shard_size, num_full=len(self.pending) - (rest > 0), rest=rest)

    def fields(self) -> Document:
        """Return it as the document has it."""
        fields: Document = {"holds": self.holds, "refusal": self.refusal, "shards_removed": self.num_removed}
        if self.run:
            left = Pending(shard_size=1, num_full=0) if self.is_done else self.left()
            plan = self.run.plan
            fields |= {
                "shards_done": plan.num_shards - left.num_shards,
                "images_done": plan.num_images - left.num_images,
                "shards_left": left.num_shards,
                "images_left": left.num_images,
            }
        return fields


def done_document(resume: Resume) -> Document:
    """Return what is to be said of a run that is complete."""
    return {"out": resume.fields()}


def document_of(
    *,
    survey: Survey,
    resume: Resume,
    findings: Findings,
    speed: Speed,
    ends: Ends,
    pending: Pending,
    written: Interval,
    forecasts: Sequence[Forecast],
    driver_mib: float,
    price: float | None,
) -> Document:
    """Return all of it; what bad pictures take foretells nothing, and is left out where the pilot had no others."""
    request, inventory, aside = survey.run.request, survey.inventory, findings.aside
    statuses = sum((Counter(group.statuses) for group in findings.groups), Counter[str]())
    is_usable = statuses["ok"] > 0
    num_pilot = sum(group.num_images for group in findings.groups)
    stages = speed.stages(pending.shard_size)
    total_s = sum(stages.values())
    seconds = speed.around(speed.seconds(pending.shard_size))
    return {
        "out": resume.fields(),
        "settled": {
            "model": request.model,
            "method": request.explain.method,
            "refined": request.refinement is not None,
            "classes": request.classes,
            "device": request.device,
            "precision": request.precision,
            "compiled": request.compiled,
            "batch_size": request.batch_size,
            "grid": list(survey.run.grid),
        },
        "images": {
            "listed": inventory.num_images,
            "kinds": inventory.kinds,
            "bytes": _source_bytes(survey, aside.headers),
            "bytes_are_estimated": inventory.num_sized < inventory.num_images,
            "labelled": inventory.num_labelled,
            "unlabelled": inventory.num_images - inventory.num_labelled,
            "classes_that_label": inventory.num_classes,
        },
        "shards": {"number": pending.num_shards, "images_each": pending.shard_size},
        "said": list(survey.said),
        "pilot": {
            "host": aside.host,
            "images": num_pilot,
            "statuses": dict(statuses),
            "bad": _bad(aside.bad),
            "images_per_second": _fields(
                Interval(
                    value=pending.shard_size / seconds.value,
                    low=pending.shard_size / seconds.high,
                    high=pending.shard_size / seconds.low,
                )
            )
            if is_usable
            else None,
            "stages": {stage: stages[stage] / total_s for stage in stages},
            "within_load": {
                stage: sum(group.seconds.get(stage, 0.0) for group in findings.groups) / num_pilot / speed_load
                for stage in ("fetch", "decode")
                if (speed_load := speed.load_s)
            },
            "core_share": core_share(findings.groups),
            "at_once": {
                "replicas": speed.crowd,
                "slower": speed.slowdown,
                "slower_measured": speed.measured,
                "core_share": core_share(aside.crowded or findings.groups),
            },
        },
        "headers": {
            "images": sum(aside.headers.statuses.values()),
            "statuses": aside.headers.statuses,
            "formats": aside.headers.formats,
            "bad": _bad(aside.headers.bad),
        },
        "start": {**asdict(ends), "compiled_s": aside.compiled_s},
        "memory_mib": {"replica": aside.peak_mib, "gpu": aside.gpu_mib, "driver": driver_mib},
        "bytes_written": _fields(written) if is_usable else None,
        "price_per_hour": price,
        "forecasts": [_forecast(one, request.device) for one in forecasts if is_usable],
    }


def _source_bytes(survey: Survey, headers: Headers) -> float | None:
    """Return the bytes of all pictures: as listed, or by the mean of those that were looked at."""
    inventory = survey.inventory
    num_looked = headers.statuses.get("ok", 0)
    num_unknown = inventory.num_images - inventory.num_sized
    if not num_unknown:
        return inventory.num_bytes
    return inventory.num_bytes + num_unknown * headers.num_bytes / num_looked if num_looked else None


def _bad(bad: Sequence[Bad]) -> list[dict[str, str]]:
    return [asdict(one) for one in bad]


def _fields(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _forecast(forecast: Forecast, device: str) -> Document:
    return {
        "replicas": forecast.replicas,
        "seconds": _fields(forecast.seconds),
        "work_seconds": _fields(forecast.work_s),
        "images_per_second": _fields(forecast.rate),
        "gpu_hours" if device == "cuda" else "core_hours": _fields(forecast.hours),
        "cost": forecast.cost and _fields(forecast.cost),
    }
