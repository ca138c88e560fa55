"""Watch one forward pass of a network: global spatial averages, layer norms of one vector, outputs of named modules.

Averages and norms are seen by a `TorchFunctionMode`, so that it does not matter whether the network calls a module, a
function or a tensor's method. What the watcher's callback returns stands in for the call's result: so a network is cut
at a call, its features are read, or others put in their place.

Letters: B batch, C channels, H, W grid, T tokens.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from cam_ops.network.grids import on_grid

Cut = Literal["pool", "norm", "module"]


@dataclass(frozen=True, slots=True)
class Place:
    """One call in a forward pass: the `index`-th of its kind, or of the module `name`."""

    cut: Cut
    index: int
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """Gain, offset and epsilon of a layer norm."""

    gain_C: Tensor | float
    offset_C: Tensor | float
    eps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A call and its tensors."""

    place: Place
    given: Tensor  # (B, C, H, W) of an average, (B, C) of a norm, the result itself of a module
    returned: Tensor
    norm: Norm | None = None
    is_of_tokens: bool = False  # (B, T, C), which need not be a grid's


class Watch(TorchFunctionMode):
    """While entered, calls `on_call(seen)` at each average and norm, and at each call of `modules` (names).

    `size` is that of the network's input, height and width.
    """

    def __init__(
        self,
        network: nn.Module,
        on_call: Callable[[Seen], Tensor],
        size: Sequence[int],
        modules: Iterable[str] = (),
    ) -> None:
        super().__init__()
        self.network = network
        self.on_call = on_call
        self.size = size
        self.modules = tuple(modules)
        self.counts: dict[tuple[Cut, str], int] = {}
        self.partial: tuple[Tensor, Tensor] | None = None
        self.hooks = ExitStack()

    def __enter__(self) -> Self:
        for name in self.modules:
            handle = self.network.get_submodule(name).register_forward_hook(partial(self._hook, name))
            self.hooks.callback(handle.remove)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        self.hooks.close()
        self.partial = None

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        returned = func(*args, **kwargs)
        averaged_BCHW, is_of_tokens = self._averaged(func, args, kwargs, returned)
        if averaged_BCHW is not None and averaged_BCHW[0, 0].numel() > 1:
            return self._call("pool", averaged_BCHW, returned, is_of_tokens=is_of_tokens)
        if func is functional.layer_norm:
            given, norm = _layer_norm_of(*args, **kwargs)
            if given.numel() == given.shape[0] * given.shape[-1]:
                return self._call("norm", given.flatten(1), returned, norm)
        return returned

    def _hook(self, name: str, module: nn.Module, given: Any, returned: Any) -> Any:
        if not isinstance(returned, Tensor):
            return returned
        return self._call("module", returned, returned, name=name, is_of_tokens=returned.ndim == 3)

    def _call(
        self,
        cut: Cut,
        given: Tensor,
        returned: Tensor,
        norm: Norm | None = None,
        name: str = "",
        is_of_tokens: bool = False,
    ) -> Tensor:
        index = self.counts.get((cut, name), 0)
        self.counts[cut, name] = index + 1
        place = Place(cut, index, name)
        return self.on_call(Seen(place=place, given=given, returned=returned, norm=norm, is_of_tokens=is_of_tokens))

    def _averaged(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], returned: Any
    ) -> tuple[Tensor | None, bool]:
        """Return what a call averaged over its whole grid, as (B, C, H, W), or None if it did nothing of the kind; and
        whether that was tokens (B, T, C).
        """
        features = args[0] if args else kwargs.get("input")
        if not isinstance(features, Tensor) or features.ndim not in (3, 4):
            return None, False
        if func in (functional.adaptive_avg_pool2d, functional.avg_pool2d, torch._C._nn.avg_pool2d):
            return (features if features.ndim == 4 and returned.shape[2:] == (1, 1) else None), False
        if func in (functional.adaptive_avg_pool1d, torch.adaptive_avg_pool1d):
            return (on_grid(features, self.size) if returned.shape[-1] == 1 else None), False
        if func not in (torch.mean, Tensor.mean):
            return None, False
        dims = args[1] if len(args) > 1 else kwargs.get("dim")
        dims = (dims,) if isinstance(dims, int) else dims
        if not isinstance(dims, (tuple, list)):
            return None, False
        spatial = sorted(dim % features.ndim for dim in dims)
        if 0 in spatial or len(spatial) > 2:
            return None, False
        if features.ndim == 4 and len(spatial) == 2:
            return features.movedim(spatial, (2, 3)), False
        if features.ndim == 4 and spatial in ([2], [3]) and returned.ndim == 3:
            self.partial = returned, features  # one axis of (B, C, H, W), perhaps the other follows
        elif features.ndim == 3 and len(spatial) == 1:
            if self.partial is not None and features is self.partial[0]:
                return (self.partial[1] if spatial == [2] else None), False
            return on_grid(features.movedim(spatial[0], 2), self.size), spatial == [1]
        return None, False


def _layer_norm_of(
    given: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, Norm]:
    """Name the arguments of functional.layer_norm."""
    gain, offset = 1.0 if weight is None else weight, 0.0 if bias is None else bias
    return given, Norm(gain_C=gain, offset_C=offset, eps=eps)


def run_from(network: nn.Module, images_BCHW: Tensor, place: Place, substitute: Tensor) -> Tensor:
    """Run `network` with the result of one call replaced; return the logits. The batch may be that of `substitute`."""

    def put(seen: Seen) -> Tensor:
        return substitute if seen.place == place else seen.returned

    with Watch(network, put, images_BCHW.shape[2:], [place.name] if place.name else []):
        logits_BK: Tensor = network(images_BCHW)
    return logits_BK
