"""Ask every node of a Ray cluster something, and what Ray would upload of a folder: for those who look, not work."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE, get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import GCS_STORAGE_MAX_SIZE, _dir_travel, _get_excludes
from ray.exceptions import GetTimeoutError

from cluster.executors.ray_actors import NODE_ID
from cluster.process.apart import build

MOST_UPLOADED = min(DASHBOARD_CLIENT_MAX_SIZE, GCS_STORAGE_MAX_SIZE)  # bytes; jobs come through the dashboard
QUIET = logging.getLogger(f"{__name__}.quiet")  # Ray tells each ignore file that it finds
QUIET.setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAnswer:
    """What a node answered, or why it did not."""

    name: str  # host or address
    resources: str  # for people: 4 CPUs, 1 GPU
    answer: Any = None
    trouble: str = ""


def ask_nodes(factory: str, arguments: tuple[Any, ...], timeout_s: float) -> list[NodeAnswer]:
    """Have each node that is alive call ``MODULE:FACTORY`` with `arguments`, all at once; a Ray must be joined.

    The answers are in the order of the nodes' names. What a node's own code raises is its trouble.
    """
    nodes: list[dict[str, Any]] = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    call = ray.remote(_call)
    calls = [
        call.options(num_cpus=0, max_retries=0, label_selector={NODE_ID: node["NodeID"]}).remote(factory, arguments)
        for node in nodes
    ]
    ray.wait(calls, num_returns=len(calls), timeout=timeout_s)
    answers = [_answer(node, reference, timeout_s) for node, reference in zip(nodes, calls, strict=True)]
    return sorted(answers, key=lambda answer: answer.name)


def _call(factory: str, arguments: tuple[Any, ...]) -> Any:
    return build(factory, arguments)


def _answer(node: dict[str, Any], reference: Any, timeout_s: float) -> NodeAnswer:
    name = node["NodeManagerHostname"] or node["NodeManagerAddress"]
    counts = {kind: node["Resources"].get(kind, 0) for kind in ("CPU", "GPU")}
    resources = ", ".join(f"{number:g} {kind}s" for kind, number in counts.items())
    try:
        return NodeAnswer(name=name, resources=resources, answer=ray.get(reference, timeout=0))
    except GetTimeoutError:
        ray.cancel(reference, force=True)
        return NodeAnswer(name=name, resources=resources, trouble=f"it did not answer within {timeout_s:.0f} s")
    except Exception as error:  # noqa: BLE001  of any code that runs there
        said = str(error).strip() or type(error).__name__
        return NodeAnswer(name=name, resources=resources, trouble=said.splitlines()[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What `ray job submit --working-dir FOLDER` would upload."""

    num_bytes: int
    num_files: int
    most: int  # bytes of a package that Ray takes
    largest: tuple[tuple[str, int], ...]  # entries of the folder, and their bytes, the largest first


def upload_of(folder: str) -> Upload:
    """Add up the files that Ray would take of a folder: without .git and its like, and what .gitignore names."""
    sizes: dict[str, int] = {}
    root, num_files = Path(folder).absolute(), 0

    def count(path: Path) -> None:
        nonlocal num_files
        if path.is_file():
            entry = path.relative_to(root).parts[0]
            sizes[entry] = sizes.get(entry, 0) + path.stat().st_size
            num_files += 1

    excludes = [_get_excludes(root, get_runtime_env_default_excludes())]
    with_gitignore = os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "0") != "1"
    _dir_travel(root, excludes, count, include_gitignore=with_gitignore, logger=QUIET)
    largest = sorted(sizes.items(), key=lambda each: -each[1])
    return Upload(num_bytes=sum(sizes.values()), num_files=num_files, most=MOST_UPLOADED, largest=tuple(largest[:3]))
