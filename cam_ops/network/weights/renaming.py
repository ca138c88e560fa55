"""Other names of parameters: what torchvision called them when it published weights, and what wrappers put between."""

import re

OLD_NAMES = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)"), r"\1"),  # as torchvision.models.densenet renames
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),  # as torchvision's MLPBlock
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)
WRAPPERS = (
    "_orig_mod.",
    "_checkpoint_wrapped_module.",
    "_fsdp_wrapped_module.",
)  # torch.compile's, and others of torch


def modern(name: str) -> str:
    """Return today's name of a parameter, without what wraps parts of its network."""
    for old, new in OLD_NAMES:
        name = old.sub(new, name)
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name
