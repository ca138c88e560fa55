"""Where the page goes: a file of its own, here or on a store, that is replaced only where it is a report."""

import os
from dataclasses import dataclass

from cam_ops.errors import RefusedError, UsageError
from cluster.report.config import ReportConfig
from cluster.report.page import MARK
from cluster.runs.directory import RunDir, open_run_dir
from cluster.runs.names import REPORT
from cluster.storage.files import Files

MAX_BYTES = 64 * 2**20
START_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Destination:
    """The file of the page."""

    files: Files
    name: str

    @property
    def where(self) -> str:
        """Its path or address."""
        return self.files.where(self.name)

    def publish(self, content: bytes) -> None:
        """Put the page in place."""
        self.files.publish(self.name, content)


def destination_of(config: ReportConfig, run_dir: RunDir) -> Destination:
    """Return where the page goes. Raises UsageError where --out is no file's, RefusedError where it is another file."""
    if config.out is None:
        return _free(Destination(run_dir, REPORT))
    if not config.out or (
        os.path.exists(config.out) and not os.path.isfile(config.out) and not os.path.isdir(config.out)
    ):
        raise UsageError(f"--out expects a file to write, such as {REPORT}, got {config.out or 'an empty text'}")
    if config.out.endswith("/") or os.path.isdir(config.out):
        raise UsageError(f"--out {config.out} is a folder; give a file, such as {config.out.rstrip('/')}/{REPORT}")
    folder, _, name = config.out.rpartition("/")
    files = open_run_dir(folder or ("/" if config.out.startswith("/") else "."), config.options)
    if f"{files.root}/".startswith(f"{run_dir.root}/") and files.root != run_dir.root:
        raise UsageError(f"--out {config.out} lies among the tables of the run; leave it out, or give a file elsewhere")
    return _free(Destination(files, name))


def _free(destination: Destination) -> Destination:
    content = destination.files.read(destination.name, MAX_BYTES)
    if content is not None and MARK.encode() not in content[:START_BYTES]:
        raise RefusedError(f"{destination.where} is there and is no report of camray; give another --out")
    return destination
