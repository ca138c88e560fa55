"""A case of the fuzz: valid files of a kind, and the commands that read them; helpers that make such files.

In the words of a command WORK is the folder of a case's files, OUT one that is not there, RUN a run of twenty pictures,
OTHER a second one, TWICE one of its pictures twice, and PICTURES the folder of these. All files are the same on each
call. Most are no commands, but one of `fuzz_readers`, as a whole command takes too long.
"""

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Files = dict[str, bytes]
Words = tuple[str, ...]
NETWORK = ("--model", "tests.support.networks:two_channels", "--mean", "0", "0", "0", "--std", "1", "1", "1")
INPUT = (*NETWORK, "--image-size", "32", "--limit", "2", "--executor", "inline", "--compile", "never", "--out", "OUT")
LABEL = ("label", "--images", "PICTURES", *INPUT)
LABEL_WITH_WEIGHTS = (
    *("label", "--images", "PICTURES", "--limit", "1", "--executor", "inline", "--compile", "never", "--out", "OUT"),
    *("--model", "shufflenet_v2_x0_5", "--image-size", "32", "--refine", "none", "--weights", "WORK/net.pt"),
)
AUDIT = ("audit", "RUN", "--executor", "inline", "--bootstrap", "0", "--overwrite")
NAMES = ("square", "round")
LOG = "log/20261130T033459Z-39060a29.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Files, those of them that are mutated, and the commands of which one reads them."""

    files: Files
    targets: tuple[str, ...]
    words: tuple[Words, ...]
    is_slow: bool  # and is taken less often


def case(files: Files, *words: Words, targets: Sequence[str] | None = None, is_slow: bool = False) -> Case:
    return Case(files=files, targets=tuple(targets or files), words=words, is_slow=is_slow)


def named(name: str, *words: Words) -> tuple[Words, ...]:
    return tuple(tuple(word.replace("NAME", name) for word in each) for each in words)


def table_text(rows: list[dict[str, str]], sign: str = ",") -> bytes:
    return "\n".join(sign.join(row) for row in [[*rows[0]], *(row.values() for row in rows)]).encode() + b"\n"


def sample(number: int, path: str) -> list[tuple[str, bytes]]:
    notes = {"boxes": [[1, 2, 30, 20]], "class_id": number % 2, "box_class_ids": [549]}
    return [("jpg", Path(path).read_bytes()), ("cls", b"%d" % (number % 2)), ("json", json.dumps(notes).encode())]


def tar_of(members: list[tuple[str, bytes]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def parquet_of(table: pa.Table, **flags: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream, **flags)
    return stream.getvalue()


def arrow_of(table: pa.Table) -> bytes:
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table, 2)
    return stream.getvalue()
