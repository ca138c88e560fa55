"""What flags leave open, settled once: when the plan is made, or as it was where a run is in place.

Without torch: a driver that resumes a run need not look at the network again. That its weights are still those of the
run, every replica sees for itself.
"""

import json
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from cam_ops.class_lists import read_class_names
from cam_ops.classes import ScoreKind
from cam_ops.settings import Device, ExplainConfig, Kind, Precision, Preprocessing, RefineConfig, Refinement
from cam_ops.tables import SCHEMA_VERSION
from cluster.label.config import LabelConfig
from cluster.runs.calibration import calibrated
from cluster.runs.record import Run, config_document
from cluster.runs.request import Request
from cluster.sources.inventory import Inventory
from cluster.sources.kinds import OWN_LABELS
from cluster.sources.labels.find import labels_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What a look at the network settles."""

    model: str
    model_digest: str
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    explain: ExplainConfig  # with the method that `auto` stands for
    refinement: Refinement | None  # as `auto` settled it
    head: Kind
    cut: tuple[str, ...]
    grid: tuple[int, int]
    scores: ScoreKind  # as `auto` settled it


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """Everything that can change a bit of the tables and does not stand in the flags as it is."""

    network: Network
    classes: str  # by default `label` where the source has labels
    device: Device
    precision: Precision
    compiled: bool
    batch_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What `label` would begin with."""

    run: Run  # its plan has no digest: it is not written
    inventory: Inventory
    said: tuple[str, ...]
    peak_mib: float  # of the process that looked at the network and listed the source


def settled_again(config: LabelConfig, run: Run) -> Settled:
    """Return what the flags leave open, as it was in the run; what they name is as they name it.

    The network is the run's, but for the names of its classes.
    """
    before, names = run.request, run.class_names
    refinement = before.refinement and replace(before.refinement, keep_cam=config.refine.keep_cam)
    if config.model.class_names:
        names = read_class_names(Path(config.model.class_names), len(run.class_names)).names
    # whether a source has labels of its own was settled with the plan
    follows_labels = config.classes is None and config.label_source in OWN_LABELS
    return Settled(
        network=Network(
            model=before.model,
            model_digest=before.model_digest,
            preprocessing=before.preprocessing,
            class_names=names,
            explain=before.explain,
            refinement=refinement,
            head=before.head,
            cut=before.cut,
            grid=run.grid,
            scores=before.scores if config.scores == "auto" else config.scores,
        ),
        classes=before.classes if follows_labels else config.wanted_classes,
        device=before.device if config.device == "auto" else config.device,
        precision=before.precision if config.precision == "auto" else config.precision,
        compiled=before.compiled if config.compile == "auto" else config.compile == "always",
        batch_size=config.batch_size or before.batch_size,
    )


def explain_again(config: LabelConfig, run: Run) -> ExplainConfig:
    """Return the flags on maps; `auto` is what it was."""
    asked = config.explain
    return replace(asked, method=run.request.explain.method) if asked.method == "auto" else asked


def refine_again(config: LabelConfig, run: Run) -> RefineConfig:
    """Return the flags on refining maps; `auto` is what it was."""
    asked, before = config.refine, run.request.refinement
    if asked.refine != "auto" or asked.refine_layers:
        return asked
    if before is None:
        return RefineConfig(refine="none")
    return replace(asked, refine="affinity", refine_layers=before.layers)


def names_network_of(config: LabelConfig, run: Run) -> bool:
    """Say whether the flags that describe network and maps are those of the run, or what `auto` was in it."""
    document, refine = config_document(config), refine_again(config, run)
    before = run.request.refinement
    layers = () if before is None else before.layers
    model = run.config.get("model")
    expected = document["model"]  # a flag that a run's version had not is as if not given
    is_same_model = isinstance(model, dict) and {**dict.fromkeys(expected), **model} == expected
    is_same_refine = run.config.get("refine") == document["refine"] or refine.refine_layers == layers
    if before is None:
        is_same_refine = refine.refine == "none"
    return is_same_model and is_same_refine and explain_again(config, run) == run.request.explain


def request_of(config: LabelConfig, settled: Settled) -> Request:
    """Return the request. Raises UsageError for a label source or a calibration that cannot be read, or fits not."""
    network = settled.network
    request = Request(
        schema_version=SCHEMA_VERSION,
        images=config.addresses if len(config.images) > 1 else config.addresses[0],
        include=config.include,
        exclude=config.exclude,
        sample=config.sample,
        seed=config.choice.seed,
        limit=config.limit,
        labels=labels_digest(config.label_source),
        columns=tuple(f"{name}={column}" for name, column in sorted(config.chosen_columns.items())),
        keep_columns=config.keep_columns,
        unknown_labels=config.unknown_labels,
        model=network.model,
        model_digest=network.model_digest,
        dilate=config.model.dilate,
        class_names_digest=sha256(json.dumps(network.class_names).encode()).hexdigest(),
        classes=settled.classes,
        scores=network.scores,
        explain=network.explain,
        refinement=network.refinement,
        head=network.head,
        cut=network.cut,
        preprocessing=network.preprocessing,
        maps=config.maps,
        boxes=config.boxes,
        device=settled.device,
        precision=settled.precision,
        compiled=settled.compiled,
        batch_size=settled.batch_size,
        shard_size=config.shard_size,
    )
    return request if config.calibration is None else calibrated(request, config.calibration)
