"""`--split`: which part of a dataset an image belongs to, by its id alone: reruns and other orders change nothing."""

import hashlib
import re
from dataclasses import dataclass

from cam_ops.errors import UsageError
from cluster.sources.splits import SPLITS

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
FOLDER = "folder"
TOLERANCE = 1e-6
NO_NAMES = frozenset({"path", "names", "nc", "channels", "download"})  # YOLO's data.yaml has these for other things


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """How images are divided."""

    shares: tuple[tuple[str, float], ...]  # names with their shares, which add up to 1; empty: by folder
    seed: int = 0

    def of(self, image_id: str) -> str | None:
        """Return the split of an image; None where its folders name none, or several."""
        if not self.shares:
            return _of_folders(image_id)
        digest = hashlib.sha256(f"{self.seed}:{image_id}".encode("utf-8", "surrogatepass")).digest()
        left = int.from_bytes(digest[:8]) / 2**64
        for name, share in self.shares:
            left -= share
            if left < 0:
                return name
        return self.shares[-1][0]


def _of_folders(image_id: str) -> str | None:
    words = {SPLITS[folder.lower()] for folder in image_id.split("/")[:-1] if folder.lower() in SPLITS}
    if len(words) != 1:
        return None
    means = words.pop()
    return means[0] if len(means) == 1 else None


def parse_split(text: str, seed: int) -> Split | None:
    """Return what --split says, None where it is empty. Raises UsageError."""
    if not text:
        return None
    if text == FOLDER:
        return Split(shares=())
    shares = []
    for entry in text.split(","):
        name, equals, number = entry.strip().partition("=")
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if not equals or not NAME.fullmatch(name) or not 0 < share <= 1:
            raise UsageError(f"--split expects NAME=SHARE,... such as train=0.9,val=0.1, or folder; got {text}")
        if name.lower() in NO_NAMES:
            raise UsageError(
                f"--split names a split {name}, which means something else in data.yaml; call it otherwise"
            )
        shares.append((name, share))
    names, total = [name for name, _ in shares], sum(share for _, share in shares)
    if len({name.lower() for name in names}) < len(names) or abs(total - 1) > TOLERANCE:
        raise UsageError(
            f"--split expects names that differ, not in capitals alone, whose shares add up to 1, got {text}, which "
            f"are {total:g}"
        )
    return Split(shares=tuple(shares), seed=seed)
