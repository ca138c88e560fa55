"""What is known of a shard's pictures that kill their replica, kept in the run directory so that no restart repeats it.

`quarantine/shard-0000000.json` names pictures that are not to be touched again, and the images that a replica is at
just now: if it dies, the next attempt narrows the suspicion, from a batch to one image, and to two deaths at it.
"""

import json
from collections import Counter
from dataclasses import dataclass, field

from cam_ops.documents import json_of
from cam_ops.errors import BadImage, StorageError
from cluster.process.console import shown
from cluster.runs.directory import RunDir
from cluster.runs.names import QUARANTINE, QUARANTINE_FILE, quarantine_name

MAX_BYTES = 2**20
MAX_DEATHS = 2  # of replicas at one image alone
MAX_READ = 100  # files, to say what there is
STATUSES = ("crashed_decoder", "crashed_network")  # of pictures that kill


@dataclass(slots=True, kw_only=True)
class Quarantine:
    """The suspicions about one shard; rows count from 0 in the shard."""

    run_dir: RunDir
    shard: int
    bad: dict[int, BadImage] = field(default_factory=dict)  # by row
    split: set[int] = field(default_factory=set)  # first rows of batches that a replica died at
    deaths: Counter[int] = field(default_factory=Counter)  # at an image alone, by row

    def add(self, row: int, bad: BadImage) -> None:
        """Take a picture out for good."""
        self.bad[row] = bad
        self._publish()

    def begin(self, first_row: int, num_rows: int) -> None:
        """Note that the network begins to work on these images."""
        self._publish((first_row, num_rows))

    def is_deadly(self, row: int) -> bool:
        """Say whether replicas died at this image alone, more than once."""
        return self.deaths[row] >= MAX_DEATHS

    def end(self) -> None:
        """Note that the shard is through: what remains are the pictures taken out, if any."""
        self.split, self.deaths = set(), Counter()
        if self.bad:
            self._publish()
        else:
            self.run_dir.remove(quarantine_name(self.shard))

    def _publish(self, at_work: tuple[int, int] | None = None) -> None:
        document = {
            "bad": {row: [bad.status, str(bad)] for row, bad in sorted(self.bad.items())},
            "split": sorted(self.split),
            "deaths": self.deaths,
            "at_work": at_work,
        }
        self.run_dir.publish(quarantine_name(self.shard), json.dumps(document).encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What quarantine holds of a run."""

    num_shards: int  # of which something is known
    first: dict[int, Quarantine]  # by shard
    unreadable: tuple[str, ...]  # why, of those among the first


def held_in(run_dir: RunDir) -> Held:
    """Read what quarantine holds of the first MAX_READ shards."""
    names = run_dir.names(QUARANTINE)
    shards = sorted(int(match[1]) for name in names if (match := QUARANTINE_FILE.fullmatch(name)))
    first, unreadable = {}, []
    for shard in shards[:MAX_READ]:
        try:
            first[shard] = read_quarantine(run_dir, shard, after_death=False)
        except StorageError as error:
            unreadable.append(str(error))
    return Held(num_shards=len(shards), first=first, unreadable=tuple(unreadable))


def read_quarantine(run_dir: RunDir, shard: int, *, after_death: bool) -> Quarantine:
    """Read what is known of a shard; `after_death` says that a replica died where the file says it was at work.

    Raises StorageError for a file that camray did not write.
    """
    found = Quarantine(run_dir=run_dir, shard=shard)
    name = quarantine_name(shard)
    content = run_dir.read(name, MAX_BYTES)
    if content is None:
        return found
    try:
        document = json_of(content)
        found.bad = {int(row): _killer(status, error) for row, (status, error) in document["bad"].items()}
        found.split = {int(row) for row in document["split"]}
        found.deaths = Counter({int(row): int(deaths) for row, deaths in document["deaths"].items()})
        first_row, num_rows = map(int, document["at_work"] or (0, 0))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise StorageError(f"{name} in {run_dir.root} is damaged ({error}); remove it") from None
    if after_death and num_rows == 1:
        found.deaths[first_row] += 1
    elif after_death and num_rows > 1:
        found.split.add(first_row)
    return found


def _killer(status: object, error: object) -> BadImage:
    if status not in STATUSES:
        raise ValueError(f"no picture is taken out as {shown(str(status))}")
    return BadImage(str(status), str(error))
