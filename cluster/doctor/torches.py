"""What needs torch: processor, compiler, GPUs, the network. Lives in a process of its own."""

import os
import platform
from pathlib import Path
from typing import get_args

import torch
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler

from cam_ops.errors import CamrayError, UsageError
from cam_ops.explain.attention import find_blocks
from cam_ops.explain.mapper import Mapper
from cam_ops.explain.methods import check_method
from cam_ops.network.grids import shown
from cam_ops.network.load import classes_for, load_classifier
from cam_ops.settings import ATTENTION, DeviceChoice, ExplainConfig, Method, ModelConfig, RefineConfig
from cluster.doctor.findings import Finding, fail, ok, warn
from cluster.machine.compilation import cache_folder
from cluster.machine.precision import FAST_BF16

GIB = 2**30
CPU_INFO = Path("/proc/cpuinfo")


class Torch:
    """Looks by means of torch."""

    def look(self, device: DeviceChoice) -> list[Finding]:
        """Check processor, compiler and GPUs."""
        return [_processor(), _compiler(), *_gpus(device)]

    def look_at_network(self, model: ModelConfig) -> list[Finding]:
        """Check that the network loads, and say what can be mapped."""
        cure = "see what `label` says of it, docs/networks.md"
        try:
            classifier = load_classifier(model)
            shape = classifier.preprocessing
            mapper = Mapper(
                classifier.network, ExplainConfig(), shape.image_size, shape.mean, shape.std, RefineConfig()
            )
            names = classes_for(classifier, mapper.head.num_classes).names
        except CamrayError as error:
            return [fail("network", str(error), cure)]
        can = [method for method in get_args(Method) if _can(method, mapper)]
        refined = f"refined to {shown(mapper.grid)}" if mapper.refinement else f"not refined: {mapper.why_not}"
        return [
            ok(
                "network",
                f"{classifier.name}, {len(names)} classes, head {mapper.head.kind}, --method auto is {mapper.method} "
                f"on {shown(mapper.cam_grid)}, {refined}; --method can be {', '.join(can)}",
            )
        ]


def _can(method: Method, mapper: Mapper) -> bool:
    try:
        check_method(method, mapper.head, ())
        if method in ATTENTION:
            find_blocks(mapper.network, mapper.size, mapper.normalisation)
    except UsageError:
        return False
    return True


def _processor() -> Finding:
    capabilities = torch.cpu.get_capabilities()
    fast = [name for name in FAST_BF16 if capabilities.get(name)]
    wide = [name for name in ("avx512", "avx512_f", "avx2") if capabilities.get(name)][:1]
    says = f"{_name()}, {len(os.sched_getaffinity(0))} core(s), {', '.join(fast + wide) or 'no AVX2'}"
    if fast:
        return ok("processor", f"{says}: bf16 is fast")
    return ok("processor", f"{says}: float32, as bf16 would be emulated")


def _name() -> str:
    lines = CPU_INFO.read_text(errors="replace").splitlines() if CPU_INFO.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _compiler() -> Finding:
    cure = "apt-get install g++, or set CXX; without it label runs eagerly, three times slower on long CPU runs"
    try:
        compiler = get_cpp_compiler()
    except (InvalidCxxCompiler, OSError):
        return warn("compiler", "there is no C++ compiler", cure)
    try:
        folder = cache_folder()
    except CamrayError as error:
        return warn("compiler", str(error), "or give --compile never")
    return ok("compiler", f"{compiler}; compiled networks are kept in {folder}")


def _gpus(device: DeviceChoice) -> list[Finding]:
    number = torch.cuda.device_count()
    built = torch.version.cuda
    if not number:
        says = f"none; torch is built {f'for CUDA {built}' if built else 'without CUDA'}"
        if device == "cuda":
            return [fail("gpu", says, "take a machine with an NVIDIA GPU and its driver, or --device cpu")]
        return [ok("gpu", says)]
    found = []
    for index in range(number):
        try:
            torch.zeros(1, device=f"cuda:{index}")
            free, total = torch.cuda.mem_get_info(index)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).strip().splitlines()[0]
            found.append(fail("gpu", f"GPU {index} cannot be used: {reason}", "check its driver with nvidia-smi"))
            continue
        properties = torch.cuda.get_device_properties(index)
        says = (
            f"GPU {index}: {properties.name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free, compute capability "
            f"{properties.major}.{properties.minor}, CUDA {built}"
        )
        is_taken = free < total / 2
        found.append(warn("gpu", says, "another process has its memory") if is_taken else ok("gpu", says))
    return found
