"""A GPU that is none: counts what a program asks of it, and computes on the CPU.

What lies on it is told by its memory: what was moved there with ``.to("cuda")``, or computed from such. As on CUDA a
blocking copy synchronises, and so does what must know values on the host: `nonzero`, a boolean mask, a number of
Python's. Tensors of both sides do not mix.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
OF_HOST = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "is_nonzero", "equal")


class Asked:
    """While entered, `counts` of copies ``in`` and ``out``, of `waits` for copies out, those in a row together, and
    of `syncs` beside these."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.storages: dict[int, Any] = {}  # held, so that no other memory takes their place
        self.is_leaving = self.is_copying = False
        self.modes = ExitStack()

    def __enter__(self) -> Self:
        self.modes.enter_context(_Operations(self))
        self.modes.enter_context(_Calls(self))
        return self

    def __exit__(self, *_: object) -> None:
        self.modes.close()

    def is_there(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self.storages

    def put(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self.storages[storage._cdata] = storage

    def copied(self, tensor: Tensor, to: torch.device, non_blocking: bool) -> Tensor:
        """Return a copy on the other side."""
        self.is_copying = True
        copy = tensor.clone()
        self.is_copying = False
        if to == CUDA:
            self.counts["in"] += 1
            self.put(copy)
        else:
            self.counts["out"] += 1
            self.counts["waits"] += non_blocking and not self.is_leaving
            self.is_leaving = non_blocking
        self.counts["syncs"] += not non_blocking
        return copy


class _Calls(TorchFunctionMode):
    """Sees what Python calls: moves, and what reads a tensor's memory."""

    def __init__(self, asked: Asked) -> None:
        super().__init__()
        self.asked = asked

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        asked, kwargs = self.asked, dict(kwargs or {})
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is not None and func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return CUDA if asked.is_there(first) else CPU
        if first is not None and func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return self._moved(func, first, *args[1:], **kwargs)
        if first is not None and func in (Tensor.numpy, Tensor.__array__):
            assert not asked.is_there(first), "can't convert cuda device type tensor to numpy"
        if first is not None and func is Tensor.tolist and asked.is_there(first):
            return asked.copied(first, CPU, False).tolist()
        if kwargs.get("device") is not None:
            device = torch.device(kwargs.pop("device"))
            made = func(*args, **kwargs)
            if device.type == "cuda":
                if func in (torch.tensor, torch.as_tensor, Tensor.new_tensor):
                    return asked.copied(made, CUDA, False)
                asked.put(made)
            return made
        if first is not None and asked.is_there(first) and func is Tensor.new_tensor:
            return asked.copied(func(*args, **kwargs), CUDA, False)
        made = func(*args, **kwargs)
        if first is not None and asked.is_there(first) and getattr(func, "__name__", "").startswith("new_"):
            asked.put(made)
        return made

    def _moved(self, func: Callable[..., Tensor], tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        device, dtype, non_blocking, layout = None, None, kwargs.get("non_blocking", False), None
        if func is Tensor.to and args and isinstance(args[0], Tensor):
            device, dtype = (CUDA if self.asked.is_there(args[0]) else CPU), args[0].dtype
        elif func is Tensor.to:
            copy = kwargs.pop("copy", False)
            device, dtype, non_blocking, layout = torch._C._nn._parse_to(*args, **kwargs)
            tensor = tensor.clone() if copy else tensor
        else:
            device = CPU if func is Tensor.cpu else CUDA
        is_there = self.asked.is_there(tensor)
        if device is not None and (device.type == "cuda") != is_there:
            tensor = self.asked.copied(tensor, CPU if is_there else CUDA, non_blocking)
        if dtype is not None:
            tensor = tensor.type(dtype)
        return tensor if layout is None else tensor.contiguous(memory_format=layout)


class _Operations(TorchDispatchMode):
    """Sees what runs: where its results lie, and whether the host must know values for it."""

    def __init__(self, asked: Asked) -> None:
        super().__init__()
        self.asked = asked

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        asked, kwargs = self.asked, kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        done = func(*args, **kwargs)
        if asked.is_copying or not any(map(asked.is_there, tensors)):
            return done
        asked.is_leaving = False
        name = func.overloadpacket.__name__
        strays = [one for one in tensors if not asked.is_there(one) and one.dim()]
        if name.startswith("index") and name not in ("index_select", "index_add"):
            indices = [one for one in tree_leaves(args[1]) if isinstance(one, Tensor)]
            masks = [one for one in indices if one.dtype in (torch.bool, torch.uint8)]
            moved = [one for one in strays if any(one is index for index in indices)]
            asked.counts["in"] += len(moved)
            asked.counts["syncs"] += len(masks) + len(moved)
            strays = [one for one in strays if not any(one is index for index in indices)]
        assert not strays, f"{func}: expected all tensors to be on the same device"
        asked.counts["syncs"] += name in OF_HOST
        if name != "_local_scalar_dense":
            tree_map_only(Tensor, asked.put, done)
        return done
