"""What each machine is asked: the driver's own, and every node of a cluster."""

import socket
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace

from cam_ops.errors import CamrayError
from cam_ops.settings import DeviceChoice
from cluster.doctor.findings import Finding, fail
from cluster.doctor.machine import look_at_machine, versions
from cluster.doctor.places import look_at_out, look_at_sources
from cluster.process.apart import Apart
from cluster.runs.directory import RunDir
from cluster.storage.options import StorageOptions

TORCH_S = 100.0  # to import it, beside whatever the machine does


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a machine says of itself."""

    host: str
    versions: dict[str, str]
    findings: tuple[Finding, ...]


def look_around(
    addresses: tuple[str, ...],
    firsts: Mapping[str, str],
    options: StorageOptions,
    run_dir: RunDir | None,
    mark: str,
    device: DeviceChoice,
) -> Answer:
    """Check the machine that this runs on.

    `firsts` are files of the sources to read, `mark` is a file that the driver left in the run directory.
    """
    findings = look_at_machine()
    with closing(Apart("cluster.doctor.torches:Torch")) as torches:
        try:
            findings += torches.call("look", device, timeout_s=TORCH_S)
        except (CamrayError, RuntimeError) as error:
            findings.append(fail("torch", str(error), "does `python -c 'import torch'` work on this machine?"))
    findings += look_at_sources(addresses, firsts, options)
    if run_dir is not None and mark:
        findings += look_at_out(run_dir, mark)
    host = socket.gethostname()
    return Answer(host=host, versions=versions(), findings=tuple(replace(each, where=host) for each in findings))
