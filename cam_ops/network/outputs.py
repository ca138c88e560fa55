"""What a network returns, to logits (B, K): which of its results these are, and what squashes them at its end.

Maps explain scores before they are squashed: behind a sigmoid or a softmax gradients vanish where the network is sure,
and a probability is no affine function of anything. So a last softmax, log-softmax or sigmoid is found in a dry run, by
leaving one out and squashing what then comes: that must be what the network returned. It is left out from then on.

A network of a single logit z is one of two classes, negative and positive, with logits -z and z.

Letters: B batch, K classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from cam_ops.classes import ScoreKind
from cam_ops.errors import UsageError
from cam_ops.network.takes import IDENTITY, Normalisation
from cam_ops.network.trial import in_a_sentence, trial_pictures
from cam_ops.settings import Size

Squashing = Literal["softmax", "log-softmax", "sigmoid", "log-sigmoid"]
Path = tuple[str | int, ...]

SQUASHINGS: dict[Callable[..., Any], Squashing] = {
    **dict.fromkeys((functional.softmax, torch.softmax, Tensor.softmax, torch.special.softmax), "softmax"),
    **dict.fromkeys((functional.log_softmax, torch.log_softmax, Tensor.log_softmax), "log-softmax"),
    torch.special.log_softmax: "log-softmax",
    **dict.fromkeys((torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_, functional.sigmoid), "sigmoid"),
    torch.special.expit: "sigmoid",
    functional.logsigmoid: "log-sigmoid",
}
SQUASH: dict[Squashing, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits_BK: logits_BK.softmax(1),
    "log-softmax": lambda logits_BK: logits_BK.log_softmax(1),
    "sigmoid": torch.sigmoid,
    "log-sigmoid": functional.logsigmoid,
}
SCORES: dict[Squashing, ScoreKind] = {
    "softmax": "softmax",
    "log-softmax": "softmax",
    "sigmoid": "sigmoid",
    "log-sigmoid": "sigmoid",
}
BY_HAND: dict[Callable[..., Any], Callable[[Tensor], list[Tensor]]] = {
    **dict.fromkeys((torch.exp, Tensor.exp), lambda e: [1 / (1 + e), e / (1 + e)]),
    **dict.fromkeys((torch.tanh, Tensor.tanh, functional.tanh), lambda t: [(1 + t) / 2]),
    functional.hardsigmoid: lambda h: [h.clone()],
}
TOLERANCE = 1e-5
MAX_TRIES = 8  # squashings, from the last one back: attention has many
SINGLE = ("negative", "positive")
"""Names of the classes of a network of one logit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How logits are taken out of what a network returns."""

    path: Path = ()  # keys and places, outermost first
    squashing: Squashing | None = None
    number: int = 0  # of the squashing among the calls of such on outputs
    num_calls: int = 0  # of these
    num_outputs: int  # numbers an image
    is_shaped: bool = True  # (B, K) whatever B is

    @property
    def is_single(self) -> bool:
        """Is there but one logit?"""
        return self.num_outputs == 1

    @property
    def is_plain(self) -> bool:
        """Are they what the network returns?"""
        return not (self.path or self.squashing or self.is_single) and self.is_shaped

    @property
    def scores(self) -> ScoreKind | None:
        """What makes scores of the logits, None where nothing tells."""
        if self.is_single:
            return "sigmoid"
        return SCORES[self.squashing] if self.squashing else None

    def said(self) -> tuple[str, ...]:
        """Say what is taken for logits; nothing where it is what the network returns."""
        words = [f"its output {_shown(self.path)}"] if self.path else []
        words += [f"what goes into its last {self.squashing}"] if self.squashing else []
        words += [f"-z and z of its one logit z, for {' and '.join(SINGLE)}"] if self.is_single else []
        return tuple(words)

    def taken(self, returned: Any) -> Tensor:
        """Return the logits (B, K)."""
        values_BK: Tensor = _at(returned, self.path).reshape(-1, self.num_outputs)
        return torch.cat([-values_BK, values_BK], 1) if self.is_single else values_BK


class _Leaving(TorchFunctionMode):
    """While entered, notes calls that squash as many numbers an image as there are outputs.

    The one of that number returns what it was given.
    """

    def __init__(self, num_outputs: int | None = None, number: int | None = None) -> None:
        super().__init__()
        self.num_outputs, self.number = num_outputs, number
        self.calls: list[tuple[Squashing, torch.Size]] = []
        self.by_hand: list[Tensor] = []  # sigmoids that may be made of what calls returned

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kind = SQUASHINGS.get(func)
        if kind is not None:
            given: Tensor = args[0] if args else kwargs["input"]
            if self.num_outputs is None or _has_outputs(given.shape, self.num_outputs):
                self.calls.append((kind, given.shape))
                if len(self.calls) - 1 == self.number:
                    return given
        returned = func(*args, **kwargs)
        if func in BY_HAND:
            self.by_hand += BY_HAND[func](returned)
        return returned


def _has_outputs(shape: torch.Size, num_outputs: int) -> bool:
    """Has each image as many numbers, or one image alone without an axis for it?"""
    return len(shape) > 0 and (shape.numel() == shape[0] * num_outputs or shape == (num_outputs,))


class _Read:
    """What the class of a network becomes that does not return its logits: its call does; all its names stay."""

    _camray_reading: Reading  # a network may have a part called `reading`

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        reading = self._camray_reading
        if not reading.squashing:
            return reading.taken(super().__call__(images_BCHW))  # type: ignore[misc]
        with _Leaving(reading.num_outputs, reading.number) as leaving:
            returned = super().__call__(images_BCHW)  # type: ignore[misc]
        if len(leaving.calls) != reading.num_calls:
            raise UsageError(
                f"the network squashes its outputs in {reading.num_calls} call(s) for two pictures, in "
                f"{len(leaving.calls)} for {len(images_BCHW)}: which of them to leave out is not known; return logits"
            )
        return reading.taken(returned)


@in_a_sentence
def return_logits(
    network: nn.Module, image_size: Size, output: str | None = None, normalisation: Normalisation = IDENTITY
) -> Reading:
    """Find where the logits of `network`, in eval mode, are, and let its calls return them from then on.

    `output` names the result that has them, `logits` or `0.logits`, where there are several. Costs a few forward passes
    on noise. Raises UsageError where nothing or several things may be the logits, and where they are squashed by hand.
    """
    images_BCHW = trial_pictures(network, image_size, normalisation=normalisation)
    if isinstance(network, _Read):  # a factory that keeps its network
        network.__class__ = type(network).__bases__[1]
    seen = _Leaving()
    with torch.no_grad(), seen:
        returned = network(images_BCHW)
    path = _logits_path(returned, len(images_BCHW), output)
    values = _at(returned, path)
    num_outputs = values[0].numel()
    kinds = [kind for kind, shape in seen.calls if _has_outputs(shape, num_outputs)]
    squashing, number = _last_squashing(network, images_BCHW, path, values, kinds)
    reading = Reading(
        path=path,
        squashing=squashing,
        number=number,
        num_calls=len(kinds),
        num_outputs=num_outputs,
        is_shaped=values.ndim == 2 and _keeps_shape(network, images_BCHW, path),
    )
    if reading.is_single and SCORES.get(squashing or "sigmoid") == "softmax":
        raise UsageError(f"the network ends in a {squashing} over a single logit, which is the same for all pictures")
    if not reading.is_plain:
        kind = type(network)
        network.__class__ = type(
            kind.__name__, (_Read, kind), {"_camray_reading": reading, "__module__": kind.__module__}
        )
    if squashing is None:
        values_BK = values.reshape(len(values), -1)
        is_squashed = any(len(shape) <= 2 and shape.numel() <= values.numel() for _, shape in seen.calls)
        refuse_probabilities(values_BK, seen.by_hand[-MAX_TRIES:], is_squashed)
    return reading


def _logits_path(returned: Any, num_images: int, output: str | None) -> Path:
    """Return where the logits are in what a network returned; raise UsageError where that has not one meaning."""
    found = dict(_tensors(returned))
    if output is not None:
        named = [path for path in found if _shown(path) == output]
        if not named or not _may_be_logits(found[named[0]], num_images):
            raise UsageError(f"--output {output} is no output of logits (batch, classes); {_listed(found)}")
        return named[0]
    candidates = [path for path, value in found.items() if _may_be_logits(value, num_images)]
    called = [path for path in candidates if path and path[-1] == "logits"]
    if len(called) == 1 or len(candidates) == 1:
        return (called or candidates)[0]
    cure = "--output says which" if candidates else "wrap it in a module whose forward returns only the logits"
    expected = "expected the network to return logits of shape (batch, classes)"
    raise UsageError(f"{expected}, {_listed(found) if found else f'it returned {type(returned).__name__}'}; {cure}")


def _tensors(value: Any, path: Path = ()) -> list[tuple[Path, Tensor]]:
    """Return the tensors in nested results, each with its place."""
    if isinstance(value, Tensor):
        return [(path, value)]
    inner: list[tuple[str | int, Any]] = []
    if isinstance(value, Mapping):
        inner = [(str(key), part) for key, part in value.items()]
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        inner = list(zip(value._fields, value, strict=True))
    elif isinstance(value, (tuple, list)):
        inner = list(enumerate(value))
    elif is_dataclass(value):
        inner = [(field.name, getattr(value, field.name)) for field in fields(value)]
    return [found for key, part in inner for found in _tensors(part, (*path, key))]


def _at(returned: Any, path: Path) -> Any:
    for key in path:
        if isinstance(returned, Mapping):
            returned = next(part for name, part in returned.items() if str(name) == key)
        else:
            returned = returned[key] if isinstance(key, int) else getattr(returned, key)
    return returned


def _may_be_logits(value: Tensor, num_images: int) -> bool:
    """Has it (B, K), (B, K, 1, 1) or one number an image?"""
    return value.is_floating_point() and value.shape[:1] == (num_images,) and all(n == 1 for n in value.shape[2:])


def _shown(path: Path) -> str:
    return ".".join(map(str, path))


def _listed(found: Mapping[Path, Tensor]) -> str:
    shown = [f"{_shown(path) or 'a tensor'} {tuple(value.shape)}" for path, value in list(found.items())[:8]]
    return f"it returned {', '.join(shown)}"


def _last_squashing(
    network: nn.Module, images_BCHW: Tensor, path: Path, values: Tensor, kinds: list[Squashing]
) -> tuple[Squashing | None, int]:
    """Return the squashing that makes the values, and its number among all; None where none of the last ones does."""
    for number in reversed(range(max(0, len(kinds) - MAX_TRIES), len(kinds))):
        with torch.no_grad(), _Leaving(values[0].numel(), number):
            other = _at(network(images_BCHW), path)
        if other.shape == values.shape and not other.equal(values):
            squashed = SQUASH[kinds[number]](other.reshape(len(other), -1)).reshape(values.shape)
            if torch.allclose(squashed, values, rtol=TOLERANCE, atol=TOLERANCE):
                return kinds[number], number
    return None, 0


def _keeps_shape(network: nn.Module, images_BCHW: Tensor, path: Path) -> bool:
    """Say whether one picture alone gives a row, too."""
    try:
        with torch.no_grad():
            return bool(_at(network(images_BCHW[:1]), path).ndim == 2)
    except Exception:  # noqa: BLE001  # `check_alone` says why
        return True


def refuse_probabilities(values_BK: Tensor, by_hand: Sequence[Tensor] = (), is_squashed: bool = False) -> None:
    """Raise UsageError for what a softmax, a log-softmax or a sigmoid made that cannot be left out.

    It is computed by hand; or several are joined, or clamped, where the network `is_squashed` somewhere.
    """
    ones_B = torch.ones_like(values_BK[:, 0])
    kind, squashing = "", "softmax"
    if values_BK.shape[1] > 1 and len(values_BK) > 1 and not values_BK.amax(1).any() and values_BK.any():
        raise UsageError(
            "the network returns logits less the largest one, which is 0 and has no map; return them as they are"
        )
    if values_BK.shape[1] > 1 and torch.allclose(values_BK.exp().sum(1), ones_B, atol=1e-4):
        kind = "logarithms of probabilities"
    elif (values_BK >= 0).all() and torch.allclose(values_BK.sum(1), ones_B, atol=1e-4):
        kind = "probabilities"
    elif ((values_BK >= 0) & (values_BK <= 1)).all():
        alike = [made.reshape(values_BK.shape) for made in by_hand if made.numel() == values_BK.numel()]
        if is_squashed or any(torch.allclose(made_BK, values_BK, rtol=TOLERANCE, atol=TOLERANCE) for made_BK in alike):
            kind, squashing = "probabilities", "sigmoid"
    if kind:
        raise UsageError(f"the network returns {kind}; return logits, without the {squashing}, as maps explain those")
