"""Compile the forward pass where that pays, once per machine: the result is kept on disk for later runs.

`$CAMRAY_CACHE`, else `$XDG_CACHE_HOME/camray`, else `~/.cache/camray` holds one file per network, cut, number format,
batch size, size of picture, kind of CPU or GPU and version of torch. Whatever is loaded from there is first compared
with the network itself in float32.
"""

import fcntl
import hashlib
import inspect
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler
from torch._inductor.utils import fresh_cache

from cam_ops.errors import MachineError, StorageError, UsageError
from cam_ops.explain import explainer, forward, joint, passes, refine
from cam_ops.explain.forward import Compiled, Forward, compile_to, distance, load_compiled, results_of
from cam_ops.explain.mapper import Mapper
from cam_ops.network import grids, outputs, watch
from cam_ops.network.weights import moving
from cam_ops.settings import CompileChoice, Device, Precision
from cluster.machine.precision import DTYPES
from cluster.process.console import say
from cluster.runs.request import Request

COMPILE_S = 30.0  # measured: ResNet-18 and -50, ConvNeXt tiny 24-33 s on two cores
COMPILE_REFINING_S = 90.0  # measured: ResNet-50 74 s, EfficientNet-Lite0 105 s beside other work
GAIN: dict[Precision, float] = {"fp32": 1.25, "bf16": 3.0, "fp16": 1.0}  # measured, the least of several networks
TOLERANCE: dict[Precision, float] = {"fp32": 1e-3, "bf16": 1e-1, "fp16": 2e-2}
TIMES_EAGER = 2.0  # measured: 0.7 to 1.4
NUM_COMPARED = 2  # pictures of noise
UNUSED_S = 90 * 24 * 3600.0


def choose_compile(
    asked: CompileChoice, mapper: Mapper, device: Device, precision: Precision, images_per_replica: float
) -> tuple[bool, str]:
    """Return whether the forward pass is compiled, and why.

    `auto` compiles on a CPU where the whole job would take so long that the gain outweighs the compilation. Raises
    UsageError or MachineError where `always` cannot be had.
    """
    hindrance = _hindrance(mapper)
    if asked == "always" and hindrance:
        raise hindrance
    if asked != "auto":
        return asked == "always", "as asked"
    if hindrance:
        return False, f"auto: {hindrance}"
    if device == "cuda":
        return False, "auto: not yet measured on CUDA; --compile always tries it"
    eager_s = images_per_replica * mapper.seconds_per_picture(DTYPES[precision])
    pays = eager_s * (1 - 1 / GAIN[precision]) > (COMPILE_S if mapper.refinement is None else COMPILE_REFINING_S)
    return pays, f"auto: about {eager_s:.0f} s of eager forward passes for each replica"


def _hindrance(mapper: Mapper) -> UsageError | MachineError | None:
    if not mapper.can_compile:
        return UsageError(f"--method {mapper.method} needs more of this network than one forward pass")
    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, OSError):  # the latter where CXX names what cannot be run
        return MachineError("there is no C++ compiler; install g++ for faster forward passes, or use --compile never")
    return None


def compile_mapper(mapper: Mapper, request: Request) -> None:
    """Let the mapper run its compiled network, which is made here unless the cache has it.

    Before `Mapper.to`. Processes of one machine wait for each other, so that one of them compiles. Raises StorageError
    where the cache cannot be written, MachineError and UsageError as `cam_ops.explain.forward.compile_to`.
    """
    folder = cache_folder()
    _remove_unused(folder)
    mapper.compile(partial(_compiled, folder, request), request.batch_size)


def cache_folder() -> Path:
    """Return the folder of compiled networks, which only this user may write; made if need be."""
    base = os.environ.get("CAMRAY_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "camray"
    )
    folder = Path(base, "compiled")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise StorageError(
            f"cannot make the cache {folder}: {error.strerror}; set CAMRAY_CACHE, or --compile never"
        ) from None
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise StorageError(
            f"the cache {folder} can be written by others, and holds native code; make it yours alone (chmod 700), "
            "or set CAMRAY_CACHE to another folder"
        )
    return folder


def _compiled(folder: Path, request: Request, exact: Forward, noise_BCYX: Tensor) -> Compiled:
    """Return the compiled form, for the run's device and number format, of the network in float32 on the CPU."""
    key = _key(request, exact, noise_BCYX)
    names = [f"{key}{number or ''}" for number in range(exact.num_libraries)]
    kept = _all_kept(folder, names)
    if kept:
        with suppress(MachineError, UsageError):  # it is not what its name says: made again
            return _loaded(kept, request, exact, noise_BCYX)
        for path in kept:
            path.unlink(missing_ok=True)
    with _alone(folder / f"{key}.lock"):
        paths = _all_kept(folder, names) or _compile(folder, names, request, exact, noise_BCYX)
    return _loaded(paths, request, exact, noise_BCYX)


def _all_kept(folder: Path, names: list[str]) -> list[Path]:
    """Find the files of a compiled network; empty where one is missing."""
    found = [_kept(folder, name) for name in names]
    paths = [path for path in found if path]
    return paths if len(paths) == len(names) else []


def _kept(folder: Path, name: str) -> Path | None:
    """Find a file with the bytes that it had when it was named; remove others of that name.

    One that is cut short would end this process when it runs.
    """
    for path in folder.glob(f"{name}-*.so"):
        with suppress(FileNotFoundError):  # another process has removed it
            if path.name == _name(name, path):
                return path
            path.unlink()
    return None


def _name(key: str, path: Path) -> str:
    """Name a file by its bytes, too: the dynamic loader gives what it has under a name, even if the file is another."""
    with path.open("rb") as file:
        return f"{key}-{hashlib.file_digest(file, 'sha256').hexdigest()[:32]}.so"


def _loaded(paths: list[Path], request: Request, exact: Forward, noise_BCYX: Tensor) -> Compiled:
    """Load a compiled network; refuse one much further from float32 than the network in the run's number format is."""
    device, dtype = torch.device(request.device), DTYPES[request.precision]
    try:
        loaded = load_compiled(paths, exact.explainer, device)
    except RuntimeError as error:
        raise MachineError(
            f"cannot load the compiled network ({error}); set CAMRAY_CACHE to a folder that native code may be loaded "
            "from, or use --compile never"
        ) from error
    limit = TOLERANCE[request.precision]
    with torch.no_grad():
        some_BCYX = noise_BCYX[:NUM_COMPARED]
        class_P = exact(some_BCYX)[0].argmax(1)
        expected = results_of(exact, exact.explainer, some_BCYX, class_P)
        found = distance(results_of(loaded, loaded.explainer, noise_BCYX.to(device), class_P), expected)
        if found > limit:
            eager = exact.on(device, dtype)
            own = distance(results_of(eager, eager.explainer, some_BCYX.to(device), class_P), expected)
            limit = max(limit, TIMES_EAGER * own)
    if not found <= limit:
        raise UsageError(
            f"the compiled {request.model} differs from the network itself in fp32 by {found:.1e} of its largest "
            f"value, at most {limit:.1e} expected; use --compile never"
        )
    for path in paths:
        os.utime(path)
    return loaded


def _compile(folder: Path, names: list[str], request: Request, exact: Forward, noise_BCYX: Tensor) -> list[Path]:
    """Compile in a folder of its own, then rename: a file is whole or not there, and what else is made is not kept."""
    duration = "about half a minute" if len(names) == 1 else "a minute or two"
    num, _, height, width = noise_BCYX.shape
    say(f"compiling the network for {num} pictures of {width}x{height} pixels, {duration}")
    start_s = time.monotonic()
    try:
        with TemporaryDirectory(dir=folder) as own, fresh_cache(dir=own):
            scratch = [Path(own, f"{name}.so") for name in names]
            compile_to(scratch, exact, noise_BCYX, torch.device(request.device), DTYPES[request.precision])
            paths = [path.rename(folder / _name(name, path)) for name, path in zip(names, scratch, strict=True)]
        for name in names:  # of a time before, when not all were whole
            for path in set(folder.glob(f"{name}-*.so")) - set(paths):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot write to {folder}: {error.strerror}; set CAMRAY_CACHE, or use --compile never"
        ) from None
    say(f"compiled in {time.monotonic() - start_s:.0f} s, kept in {folder}")
    return paths


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the file's lock, which ends with the process that holds it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _key(request: Request, exact: Forward, noise_BCYX: Tensor) -> str:
    """Name a compiled network by all that it depends on."""
    parts: list[Any] = [
        *(request.model_digest, request.dilate, request.explain.method, request.head, request.cut, request.precision),
        *(request.preprocessing.mean, request.preprocessing.std),
        request.refinement and request.refinement.layers,
        *(tuple(noise_BCYX.shape), str(noise_BCYX.dtype), _machine(torch.device(request.device)), torch.__version__),
        _source_digest(exact.network),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return "\n".join(sorted({line for line in lines if line.startswith(("flags", "model name", "Features"))}))


def _source_digest(network: nn.Module) -> str:
    """Digest the files that define the network's modules, and ours that trace it or are traced with it."""
    files = {
        inspect.getfile(module) for module in (explainer, forward, grids, joint, moving, outputs, passes, refine, watch)
    }
    for kind in {type(module) for module in network.modules()}:
        with suppress(TypeError, OSError):  # defined at a prompt: the comparison with the network itself remains
            files.add(inspect.getfile(kind))
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()


def _remove_unused(folder: Path) -> None:
    """Remove what no run has loaded for three months."""
    for path in folder.iterdir():
        with suppress(OSError):  # another process may do the same
            if path.is_file() and path.stat().st_mtime < time.time() - UNUSED_S:
                path.unlink()
