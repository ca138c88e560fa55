"""From what a pilot found to times, sizes and prices: arithmetic alone.

A shard of n images takes a part for each batch, a part for each image, and one for itself; its tables have a size for
each image and one for themselves. Intervals are those that the spread between the pilot's batches leaves, at 95 %, and
`DRIFT` beside them.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from cam_ops.settings import Device
from cluster.plan.findings import Findings, Group, Sizes

TURN = ("load", "network", "boxes", "publish")  # stages of a shard that add up
T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)  # Student's, by degrees of freedom from 1 on
DRIFT = 0.1  # of a machine's speed between the pilot and the run


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure, and where it may lie."""

    value: float
    low: float
    high: float

    def __mul__(self, factor: float) -> "Interval":
        return Interval(value=self.value * factor, low=self.low * factor, high=self.high * factor)

    def __add__(self, other: float) -> "Interval":
        return Interval(value=self.value + other, low=self.low + other, high=self.high + other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """What grows with the number of images: a part for each, and one for the shard."""

    shard: float
    image: float

    def at(self, num_images: int) -> float:
        """Return it for a shard of so many images."""
        return self.shard + self.image * num_images


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How long one replica takes."""

    device: Device
    batch_size: int
    load_s: float  # of an image
    network_s: float  # of a batch
    boxes_s: float  # of an image
    publish_s: Linear
    crowd: int  # replicas that one machine was seen to have at work
    slowdown: float  # of each of them by the others
    measured: float  # the same as it was measured: more than `crowd` is other work on the machine
    spread: float  # half of the interval's width, of the value

    def stages(self, num_images: int) -> dict[str, float]:
        """Return the seconds of a shard of so many images, by stage."""
        return {
            "load": self.load_s * num_images,
            "network": self.network_s * math.ceil(num_images / self.batch_size),
            "boxes": self.boxes_s * num_images,
            "publish": self.publish_s.at(num_images),
        }

    def seconds(self, num_images: int) -> float:
        """Return the time of a shard of so many images: before a GPU the last two stages go on beside the next shard's
        first.
        """
        stages = self.stages(num_images)
        if self.device == "cpu":
            return sum(stages.values())
        return max(stages["load"] + stages["network"], stages["boxes"] + stages["publish"])

    def slower(self, num_replicas: int) -> float:
        """Return by what factor each of so many replicas is slower than one alone, one machine being filled first."""
        if self.crowd < 2:
            return 1.0
        return 1 + (self.slowdown - 1) * (min(num_replicas, self.crowd) - 1) / (self.crowd - 1)

    def around(self, seconds: float) -> Interval:
        """Return a time with its interval."""
        return Interval(value=seconds, low=seconds / (1 + self.spread), high=seconds * (1 + self.spread))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """What is left to do: `num_full` shards of `shard_size` images and one of `rest`, if that is not 0."""

    shard_size: int
    num_full: int
    rest: int = 0

    @property
    def num_shards(self) -> int:
        """Shards in all."""
        return self.num_full + (self.rest > 0)

    @property
    def num_images(self) -> int:
        """Images in all."""
        return self.num_full * self.shard_size + self.rest


def pending_of(num_images: int, shard_size: int) -> Pending:
    """Return all shards of a new plan."""
    num_full, rest = divmod(num_images, shard_size)
    return Pending(shard_size=shard_size, num_full=num_full, rest=rest)


def speed_of(findings: Findings, device: Device, batch_size: int) -> Speed:
    """Return how long one replica takes, by the pilot's groups."""
    groups = findings.groups
    num_images = sum(group.num_images for group in groups)
    total = {stage: sum(group.seconds.get(stage, 0.0) for group in groups) for stage in TURN}
    times = [_time_of_image(group) for group in groups]
    crowded = [_time_of_image(group) for group in findings.aside.crowded]
    crowd = findings.aside.crowd if crowded else 1
    measured = max(1.0, statistics.fmean(crowded) / statistics.fmean(times)) if crowded else 1.0
    return Speed(
        device=device,
        batch_size=batch_size,
        load_s=total["load"] / num_images,
        network_s=total["network"] / len(groups),
        boxes_s=total["boxes"] / num_images,
        publish_s=_linear([(part.num_images, part.seconds) for part in findings.aside.parts], _seconds_of(findings)),
        crowd=crowd,
        slowdown=min(measured, crowd),
        measured=measured,
        spread=half_width(crowded or times) + DRIFT,
    )


def _time_of_image(group: Group) -> float:
    """Return the seconds of an image in a group."""
    return sum(group.seconds.get(stage, 0.0) for stage in TURN) / group.num_images


def _seconds_of(findings: Findings) -> tuple[int, float] | None:
    joined = findings.aside.joined
    return None if joined is None else (joined.num_images, joined.seconds)


def core_share(groups: Sequence[Group]) -> float:
    """Return what part of a core the replica had while it was at work: less than it wants where it waits for its
    pictures or the disk, or where others are at work on its machine.
    """
    wall_s = sum(_time_of_image(group) * group.num_images for group in groups)
    return sum(group.cpu_s for group in groups) / wall_s if wall_s else 0.0


def _linear(parts: Sequence[tuple[int, float]], joined: tuple[int, float] | None) -> Linear:
    """Split what several parts have, and all of them have as one, into a share for each image and one for each part.

    Without the latter all is taken to be the images'.
    """
    total = sum(value for _, value in parts)
    num_images = sum(number for number, _ in parts)
    if joined is None:
        return Linear(shard=0.0, image=total / num_images if num_images else 0.0)
    number, value = joined
    shard = min(max(0.0, (total - value) / (len(parts) - 1)), value)
    return Linear(shard=shard, image=(value - shard) / number)


def half_width(values: Sequence[float]) -> float:
    """Return half of the width of the 95 % interval of the values' mean, of that mean; 1 of a single value."""
    if len(values) < 2:
        return 1.0
    freedom = len(values) - 1
    t = T95[freedom - 1] if freedom <= len(T95) else 2.0
    mean = statistics.fmean(values)
    return t * statistics.stdev(values) / math.sqrt(len(values)) / mean if mean else 0.0


def table_bytes(parts: Sequence[Sizes], joined: Sizes | None, pending: Pending) -> Interval:
    """Return how many bytes the three tables of all shards will have."""
    whole = None if joined is None else (joined.num_images, joined.num_bytes)
    size = _linear([(part.num_images, part.num_bytes) for part in parts], whole)
    value = size.shard * pending.num_shards + size.image * pending.num_images
    per_image = [max(0.0, part.num_bytes - size.shard) / part.num_images for part in parts]
    spread = half_width(per_image) + DRIFT / 2
    return Interval(value=value, low=value / (1 + spread), high=value * (1 + spread))


def work_seconds(speed: Speed, pending: Pending, num_replicas: int) -> float:
    """Return how long replicas are at work until the last shard is done, each of which takes the next that is left."""
    rounds, over = divmod(pending.num_full, num_replicas)
    full_s = speed.seconds(pending.shard_size)
    longest_s = full_s * (rounds + (over > 0))
    if not pending.rest:
        return longest_s
    return max(longest_s, full_s * rounds + speed.seconds(pending.rest))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """The time that a run takes beside its shards."""

    driver_s: float  # before replicas are asked for
    replica_s: float  # until they are ready, compiled before
    first_s: float  # what the first batch takes more than others
    close_s: float  # at the end

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.driver_s + self.replica_s + self.first_s + self.close_s


def ends_of(findings: Findings, driver_s: float, close_s: float) -> Ends:
    """Return it, by what the pilot took."""
    aside, groups = findings.aside, findings.groups
    usual_s = statistics.fmean(sum(group.seconds.get(stage, 0.0) for stage in TURN) for group in groups)
    warm_s = sum(aside.warm_up.seconds.get(stage, 0.0) for stage in TURN)
    return Ends(
        driver_s=driver_s,
        replica_s=findings.start_s - aside.compiled_s,
        first_s=max(0.0, warm_s - usual_s) if warm_s else 0.0,
        close_s=close_s,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """A run with so many replicas."""

    replicas: int
    seconds: Interval  # from the command to its end
    work_s: Interval  # of that, replicas are at work
    rate: Interval  # images a second of that time
    hours: Interval  # of GPUs, or of cores
    cost: Interval | None


def forecast(
    speed: Speed, ends: Ends, pending: Pending, replicas: int, units_per_replica: float, price: float | None
) -> Forecast:
    """Foretell a run; each replica has `units_per_replica` GPUs, or cores, from beginning to end."""
    slower = speed.slower(replicas)
    work_s = speed.around(slower * work_seconds(speed, pending, replicas))
    seconds = work_s + (ends.seconds + (slower - 1) * ends.replica_s)
    hours = seconds * (replicas * units_per_replica / 3600)
    return Forecast(
        replicas=replicas,
        seconds=seconds,
        work_s=work_s,
        rate=Interval(
            value=pending.num_images / work_s.value,
            low=pending.num_images / work_s.high,
            high=pending.num_images / work_s.low,
        ),
        hours=hours,
        cost=None if price is None else hours * price,
    )
