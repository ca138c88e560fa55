"""What a pilot found: what replica and driver hand to each other. Without torch."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """An image that cannot be used."""

    image_id: str
    status: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Headers:
    """A look at some pictures, without decoding them."""

    statuses: dict[str, int]
    formats: dict[str, int]  # of those that are ok, by their first bytes
    num_bytes: int  # of those
    bad: list[Bad]  # some of the others


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A few images that a replica labelled as one shard."""

    num_images: int
    seconds: dict[str, float]  # as `ShardReport` has them
    cpu_s: float  # that the replica's own thread had of a core meanwhile
    statuses: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Tables of so many images: their bytes, and the seconds that it took to write and publish them."""

    num_images: int
    num_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """What a replica measured beside its shards."""

    host: str
    load_s: float  # from its factory's call to its being ready, compilation included
    compiled_s: float  # of that, 0 where it was compiled before
    warm_up: Group  # the first batch
    parts: list[Sizes]  # of each group
    joined: Sizes | None  # of all groups as one shard
    crowd: int  # replicas that were then at work at once on this machine
    crowded: list[Group]  # the same groups again among them; empty where the crowd is 1
    bad: list[Bad]
    headers: Headers
    peak_mib: float
    gpu_mib: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All of it."""

    start_s: float  # until the replica was ready, from when it was asked for
    groups: list[Group]
    aside: Aside
