"""What camray finds in torchvision's and timm's networks: the table in docs/architectures.md, printed when run.

Random, seeded weights; small pictures where an architecture allows. `test_architectures` regenerates and
compares the table.
"""

import re
import warnings
from collections.abc import Iterator
from typing import get_args

import torch
import transformers

from cam_ops.errors import UsageError
from cam_ops.explain.attention import find_blocks
from cam_ops.explain.explainer import completeness_residuals
from cam_ops.explain.methods import methods_for
from cam_ops.explain.passes import run
from cam_ops.network.heads import Head, find_head
from cam_ops.network.names import HUB, TIMM
from cam_ops.network.outputs import return_logits
from cam_ops.network.stages import find_stages
from cam_ops.network.zoo import find_architecture
from cam_ops.settings import ATTENTION, Method

AT_96 = """
alexnet densenet121 convnext_tiny efficientnet_b0 efficientnet_v2_s googlenet mnasnet0_5 mobilenet_v2 mobilenet_v3_large
mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnet18 resnet50 resnext50_32x4d shufflenet_v2_x0_5 squeezenet1_0
squeezenet1_1 swin_t swin_v2_t vgg11 vgg16_bn wide_resnet50_2
timm:convmixer_768_32 timm:convnext_atto timm:convnextv2_atto timm:cspdarknet53 timm:cspresnet50 timm:darknet53
timm:densenet121 timm:dla34 timm:dm_nfnet_f0 timm:dpn68 timm:edgenext_xx_small timm:efficientnet_b0
timm:efficientnetv2_rw_t timm:efficientvit_b0 timm:fasternet_t0 timm:fastvit_t8 timm:focalnet_tiny_srf timm:gernet_s
timm:ghostnet_100 timm:hardcorenas_a timm:hgnet_tiny timm:hgnetv2_b0 timm:hrnet_w18_small timm:lcnet_050
timm:legacy_xception timm:mambaout_femto timm:mixnet_s timm:mnasnet_small timm:mobilenetv2_050
timm:mobilenetv3_small_050 timm:mobilenetv4_conv_small timm:mobileone_s0 timm:nextvit_small timm:nf_regnet_b0
timm:poolformer_s12 timm:poolformerv2_s12 timm:pvt_v2_b0 timm:rdnet_tiny timm:regnetx_002 timm:regnety_002
timm:repghostnet_050 timm:repvgg_a0 timm:repvit_m0_9 timm:res2net50_26w_4s timm:resnest14d timm:resnet50
timm:resnetv2_50 timm:resnext50_32x4d timm:rexnet_100 timm:selecsls42b timm:seresnet18 timm:shvit_s1 timm:skresnet18
timm:starnet_s1 timm:tiny_vit_5m_224 timm:tinynet_e timm:tresnet_m timm:xception41 timm:caformer_s18
timm:convformer_s18
""".split()  # noqa: SIM905
AT_THEIR_SIZE = """
inception_v3 maxvit_t vit_b_32
timm:beit_base_patch16_224 timm:botnet26t_256 timm:cait_xxs24_224 timm:coatnet_nano_rw_224 timm:convit_tiny
timm:crossvit_tiny_240 timm:davit_tiny timm:deit3_small_patch16_224 timm:deit_tiny_patch16_224 timm:efficientformer_l1
timm:eva02_tiny_patch14_224 timm:gcvit_xxtiny timm:gmlp_s16_224 timm:hiera_tiny_224 timm:inception_next_atto
timm:inception_v4 timm:levit_128s timm:maxvit_rmlp_pico_rw_256 timm:mixer_s16_224 timm:mobilevit_xxs
timm:mobilevitv2_050 timm:mvitv2_tiny timm:nest_tiny timm:pit_ti_224 timm:resmlp_12_224 timm:sequencer2d_s
timm:swiftformer_xs timm:swin_tiny_patch4_window7_224 timm:swinv2_cr_tiny_ns_224 timm:swinv2_tiny_window8_256
timm:tnt_s_patch16_224 timm:twins_pcpvt_small timm:vgg11 timm:visformer_tiny timm:vit_base_patch16_siglip_224
timm:vit_relpos_small_patch16_224 timm:vit_tiny_patch16_224 timm:vitamin_small_224 timm:volo_d1_224
timm:xcit_nano_12_p16_224
""".split()  # noqa: SIM905


OF_HUB = """
beit bit convnext convnextv2 dinov2 focalnet hgnet_v2 ijepa mobilenet_v1 mobilenet_v2 mobilevit poolformer pvt_v2 regnet
resnet segformer siglip swiftformer swin textnet vit vit_msn
""".split()  # noqa: SIM905
HUB_NAMES = [f"{HUB}{kind}" for kind in OF_HUB]
KINDS = ("", "timm", "hf")
SMALL = {
    **{"num_hidden_layers": 4, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128},
}


def _of_hub(kind: str) -> tuple[torch.nn.Module, int]:
    """Return a classifier of a family of transformers', small where its config allows, and the side of its input."""
    transformers.utils.logging.set_verbosity_error()
    known = vars(transformers.AutoConfig.for_model(kind))
    config = transformers.AutoConfig.for_model(
        kind, **{name: n for name, n in SMALL.items() if type(known.get(name)) is int}, num_labels=10
    )
    if kind == "siglip":
        config = transformers.SiglipConfig(vision_config=SMALL, num_labels=10)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = transformers.AutoModelForImageClassification.from_config(config)
    network.eval().requires_grad_(False)
    side = getattr(config, "image_size", None)
    side = side if isinstance(side, int) else 224
    return_logits(network, side, "logits")
    return network, side


def _of_library(name: str) -> tuple[torch.nn.Module, int]:
    architecture = find_architecture(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of timm's own code
        network = architecture.build().eval().requires_grad_(False)
    side = 96 if name in AT_96 else architecture.size
    assert isinstance(side, int)
    return network, side


def row_of(name: str) -> str:
    """Return the table's line for one network."""
    network, side = _of_hub(name.removeprefix(HUB)) if name.startswith(HUB) else _of_library(name)
    try:
        head = find_head(network, side)
    except UsageError as error:
        reason = re.sub(r";? ?name one with --layer: ([^,]+).*", r"; give --layer, such as \1", str(error))
        return f"| `{name}` | {side} | refused | | | {reason} | |"
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(3))
    residual = completeness_residuals(run(network, images, head), head, torch.tensor([0, 1]), torch.tensor([3, 5]))
    shown = "" if residual is None else "< 1e-5" if residual.max() < 1e-5 else f"{residual.max():.0e}"
    methods: list[Method] = [*methods_for(head), *(method for method in ATTENTION if _has_blocks(network, side))]
    refined_from = _stages(network, side)
    return f"| `{name}` | {side} | {head.kind} | {_place(head)} | {shown} | {_methods(methods)} | {refined_from} |"


def _place(head: Head) -> str:
    grid = f"{head.grid[0]}x{head.grid[1]}x{head.num_channels}"
    return grid + "".join(f" at `{layer}`" for layer in head.layers)


def _has_blocks(network: torch.nn.Module, side: int) -> bool:
    try:
        find_blocks(network, side)
    except UsageError:
        return False
    return True


def _stages(network: torch.nn.Module, side: int) -> str:
    _wake(network)
    try:
        stages = find_stages(network, side)
    except UsageError as error:
        return f"none: {error}"
    return f"{stages.coarse_grid[0]} at `{stages.coarse.name}`, {stages.fine_grid[0]} at `{stages.fine.name}`"


def _wake(network: torch.nn.Module) -> None:
    """Set scales of batch norms that begin at 0 to 1: without training no gradient passes these branches."""
    for norm in network.modules():
        if isinstance(norm, torch.nn.BatchNorm2d) and norm.weight is not None and not norm.weight.any():
            norm.weight.fill_(1)


def _methods(methods: list[Method]) -> str:
    missing = [method for method in get_args(Method) if method not in methods]
    return f"{len(methods)}: all but {', '.join(missing)}" if missing else f"{len(methods)}: all"


def _order(name: str) -> tuple[int, str]:
    kind, colon, _ = name.partition(":")
    return (KINDS.index(kind) if colon else 0), name


def table() -> Iterator[str]:
    """Yield the lines of docs/architectures.md."""
    all_names = sorted([*AT_96, *AT_THEIR_SIZE, *HUB_NAMES], key=_order)
    num_timm = sum(name.startswith(TIMM) for name in all_names)
    num_torchvision = len(all_names) - num_timm - len(OF_HUB)
    yield f"""\
# What is found in {num_torchvision} torchvision and {num_timm} timm networks, and {len(OF_HUB)} families of the hub

Made by `python -m tests.support.architectures`; a test regenerates it. Random weights; the side of the input in pixels
is small where the architecture allows, and so is the grid (height x width x channels). Other names of a family behave
alike. `hf:` stands before families of Hugging Face's transformers, made small: `--model hf:FOLDER` takes snapshots of
them.

* `affine`: average, then linear; `score-map`: the network averages a map per class; `norm-affine`: average, layer norm,
  linear, folded exactly; `cosine`: average, then cosines; `pooled`: average, then anything, which alone is
  differentiated; `layer`: no average, so the network is cut at the named layer and differentiated from there on.
* residual: largest |mean(map) + bias - logit| / max |logit| of class activation maps, float32.
* refused: needs `--layer`; any gradient method then works there.
* refined from: side and name of the coarse and the fine features that maps are refined from, or why there are none;
  with the scales of batch norms at 1 where they begin at 0, as training moves them.

| network | input | kind | grid | residual | methods | refined from |
|---|---|---|---|---|---|---|"""
    for name in all_names:
        yield row_of(name)


if __name__ == "__main__":
    for line in table():
        print(line, flush=True)
