"""From an image's bytes to its place in the network's input: here, or in a process that may die of it.

Letters: Y, X height and width of the network's input.
"""

import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2

from cam_ops.arrays import F32, U8
from cam_ops.errors import BadImage, StorageError
from cam_ops.foreign import whole
from cam_ops.pictures.fit import fit
from cam_ops.settings import Preprocessing
from cluster.process.apart import Apart, ProcessEnded
from cluster.sources.reading import decode_for_input, read_image
from cluster.storage.options import StorageOptions

DECODE_TIMEOUT_S = 60.0
MAX_DEATHS = 2  # of decoders: the first may have died of something else
ROOM_BYTES = 4 * 2**30  # a decoder's memory beyond what it starts with; the largest picture allowed takes a tenth


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A decoded picture as the network sees it, its own size, and the part of it that the network sees."""

    pixels_YX3: U8
    rectangle: F32
    width: int
    height: int


def decode_and_fit(row: dict[str, Any], encoded: bytes, config: Preprocessing) -> Fitted:
    """Decode what `cluster.sources.reading.read_image` gave for a planned row and fit it; raises BadImage."""
    decoded = decode_for_input(row, encoded, config)
    pixels_YX3, rectangle = fit(decoded, config)
    return Fitted(pixels_YX3=pixels_YX3, rectangle=rectangle, width=decoded.width, height=decoded.height)


class Outcome(NamedTuple):
    """What became of a picture; its own size and the part of it that the network sees, where it could be decoded."""

    status: str = "ok"
    error: str | None = None
    width: int = 0
    height: int = 0
    rectangle: tuple[float, ...] = (0, 0, 0, 0)


Encoded = bytes | BadImage
Decode = Callable[[dict[str, Any], bytes, Preprocessing], Fitted]


def fetch(row: dict[str, Any], options: StorageOptions) -> Encoded:
    """Return a planned image's bytes, or why there are none; raises StorageError where the storage is the reason."""
    try:
        return read_image(row["uri"], row["offset"], row["size"], options)
    except BadImage as bad:
        return bad


def decode_into(
    pixels_YX3: U8, row: dict[str, Any], encoded: Encoded, config: Preprocessing, decode: Decode = decode_and_fit
) -> Outcome:
    """Decode what `fetch` gave for a planned row into its place, which is 0 where that cannot be."""
    try:
        if isinstance(encoded, BadImage):
            raise encoded
        fitted = decode(row, encoded, config)
    except BadImage as bad:
        pixels_YX3.fill(0)
        return Outcome(bad.status, whole(str(bad)))
    pixels_YX3[...] = fitted.pixels_YX3
    return Outcome(width=fitted.width, height=fitted.height, rectangle=tuple(fitted.rectangle.tolist()))


class DecoderApart:
    """Decodes in a process with limits, which is replaced when it dies; close it to end that."""

    def __init__(self, config: Preprocessing, timeout_s: float = DECODE_TIMEOUT_S) -> None:
        self.config, self.timeout_s = config, timeout_s
        self.process: Apart | None = None

    def decode_and_fit(self, row: dict[str, Any], encoded: bytes, _: Preprocessing | None = None) -> Fitted:
        """Do the same there; raises BadImage ``crashed_decoder`` where two processes died of it or did not end."""
        for deaths in range(1, MAX_DEATHS + 1):
            if self.process is None:
                self.process = Apart("cluster.label.decoding:LimitedDecoder", self.config)
                self.process.call("ready")  # its imports are not this picture's time
            try:
                answer = self.process.call("decode_and_fit", row, encoded, timeout_s=self.timeout_s)
            except ProcessEnded as end:
                self.close()
                if deaths == MAX_DEATHS:
                    raise BadImage("crashed_decoder", _how(end.process_code, self.timeout_s)) from None
            else:
                if isinstance(answer, Fitted):
                    return answer
                raise BadImage(*answer)
        raise AssertionError

    def close(self) -> None:
        """End the process if there is one."""
        if self.process:
            self.process.close()
            self.process = None


class LimitedDecoder:
    """What lives in that process."""

    def __init__(self, config: Preprocessing) -> None:
        self.config = config
        cv2.setNumThreads(0)
        with open("/proc/self/statm") as file:
            room = int(file.read().split()[0]) * resource.getpagesize() + ROOM_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def ready(self) -> None:
        """Return once there is a decoder."""

    def decode_and_fit(self, row: dict[str, Any], encoded: bytes) -> Fitted | tuple[str, str]:
        """Return the picture, or status and reason."""
        try:
            return decode_and_fit(row, encoded, self.config)
        except BadImage as bad:
            return bad.status, str(bad)
        except MemoryError:
            return "undecodable", f"decoding it takes more than {ROOM_BYTES} bytes"

    def decode_first(self, rows: list[dict[str, Any]], most: int, options: StorageOptions) -> list[U8]:
        """Return the network's input of the first rows whose pictures can be had, at most so many."""
        found: list[U8] = []
        for row in rows:
            with suppress(BadImage, StorageError, MemoryError):  # the run will say so
                content = read_image(row["uri"], row["offset"], row["size"], options)
                found.append(decode_and_fit(row, content, self.config).pixels_YX3)
            if len(found) == most:
                break
        return found


def _how(process_code: int | None, timeout_s: float) -> str:
    if process_code is None:
        return f"the decoder did not end within {timeout_s:.0f} s"
    if process_code < 0:
        return f"the decoder was ended by signal {-process_code} ({signal.Signals(-process_code).name})"
    return f"the decoder ended with exit code {process_code}"
