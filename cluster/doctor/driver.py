"""`doctor`: this machine, then the nodes, then the network; what is not asked for is not checked."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace

from cam_ops.errors import CamrayError
from cluster.doctor.config import DoctorConfig
from cluster.doctor.findings import Finding, fail, failed, ok, warn
from cluster.doctor.node import Answer, look_around
from cluster.doctor.places import first_files, marked
from cluster.executors.choose import no_gpus, open_executor
from cluster.process.apart import Apart
from cluster.runs.directory import RunDir, open_run_dir

MIB = 2**20
NETWORK_S = 600.0  # it may be downloaded


def doctor(config: DoctorConfig) -> Iterator[Finding]:
    """Yield what each check finds, as it is found."""
    run_dir = None if config.out is None else open_run_dir(config.out, config.options)
    addresses, mark = config.addresses, ""
    is_ray = config.executor == "ray" or (
        config.executor == "auto" and bool(config.ray_address or os.environ.get("RAY_ADDRESS"))
    )
    with ExitStack() as stack:
        if run_dir is not None:
            try:
                mark = stack.enter_context(marked(run_dir))
            except CamrayError as error:
                yield failed("out", error, "check --out, its permissions and the credentials")
        firsts = first_files(addresses, config.options)
        here = look_around(addresses, firsts, config.options, run_dir, mark, config.device)
        yield from (replace(each, where="") for each in here.findings)
        if is_ray:
            yield from _nodes(config, firsts, run_dir, mark, here)
    if config.network is not None:
        with closing(Apart("cluster.doctor.torches:Torch")) as torches:
            try:
                yield from torches.call("look_at_network", config.network, timeout_s=NETWORK_S)
            except (CamrayError, RuntimeError) as error:
                yield fail("network", str(error), "does its code, or a lack of memory, end the process that loads it?")


def _nodes(
    config: DoctorConfig, firsts: dict[str, str], run_dir: RunDir | None, mark: str, here: Answer
) -> Iterator[Finding]:
    """Yield what the nodes of the cluster find, but for what is well on all of them alike."""
    try:
        executor = open_executor("ray", config.ray_address, no_gpus)
    except CamrayError as error:
        yield fail("ray", str(error), "start a cluster, or mend the address; `ray status` on its head says more")
        return
    with closing(executor):
        from cluster.executors.ray_nodes import ask_nodes

        arguments = config.addresses, firsts, config.options, run_dir, mark, config.device
        answers = ask_nodes("cluster.doctor.node:look_around", arguments, config.timeout)
        cpus, gpus = executor.num_cpus, executor.num_gpus
        yield ok("ray", f"{len(answers)} node(s), {cpus} CPU(s), {gpus} GPU(s)")
        for node in answers:
            if node.trouble:
                cure = "is the code there (--working-dir), and are the packages installed? See Ray's logs on it"
                yield replace(fail("node", f"{node.resources}: {node.trouble}", cure), where=node.name)
                continue
            answer: Answer = node.answer
            bad = [finding for finding in answer.findings if finding.verdict != "ok"]
            yield replace(_versions(answer, here, node.resources), where=node.name)
            yield from (replace(finding, where=node.name) for finding in bad)
        yield _upload()


def _upload() -> Finding:
    """Say what Ray would take along of this folder."""
    from cluster.executors.ray_nodes import upload_of

    cure = "name what is not code in .gitignore or .rayignore, or submit from a folder with the code alone"
    try:
        upload = upload_of(".")
    except (OSError, ValueError) as error:  # a file that cannot be read, an ignore file that is not UTF-8
        return fail("upload", f"Ray cannot pack this folder: {error}", cure)
    largest = ", ".join(f"{name} {size / MIB:.0f} MiB" for name, size in upload.largest)
    says = f"--working-dir . would upload {upload.num_bytes / MIB:.1f} MiB in {upload.num_files} files ({largest})"
    if upload.num_bytes > upload.most:
        return fail("upload", f"{says}; Ray takes {upload.most / MIB:.0f} MiB, packed", cure)
    return warn("upload", says, cure) if upload.num_bytes > upload.most / 4 else ok("upload", says)


def _versions(answer: Answer, here: Answer, resources: str) -> Finding:
    """Say whether a node has the driver's versions."""
    other = [
        f"{name} {is_at}, the driver has {here.versions.get(name)}"
        for name, is_at in answer.versions.items()
        if is_at != here.versions.get(name)
    ]
    checks = ", ".join(dict.fromkeys(finding.check for finding in answer.findings if finding.verdict == "ok"))
    if other:
        return fail("node", f"{resources}: {'; '.join(other)}", "install the same versions on all nodes")
    return ok("node", f"{resources}; well there, too: {checks}")
