"""What torchvision called parameters when it published their weights, and what it calls them now."""

import re

OLD_NAMES = (
    (
        re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)"),
        r"\1",
    ),  # torchvision.models.densenet._load_state_dict
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),  # torchvision.models.vision_transformer.MLPBlock
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)


def modern(name: str) -> str:
    """Return today's name of a parameter."""
    for old, new in OLD_NAMES:
        name = old.sub(new, name)
    return name
