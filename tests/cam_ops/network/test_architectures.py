"""docs/architectures.md is what the code finds today."""

import re

import pytest

from tests.support.architectures import AT_96, AT_THEIR_SIZE, HUB_NAMES, row_of, table
from tests.support.command import ROOT

pytestmark = pytest.mark.slow

SLOWEST = {  # of which each takes half a minute
    *("timm:beit_base_patch16_224", "timm:vit_base_patch16_siglip_224", "timm:inception_v4", "timm:vgg11"),
    *("timm:cait_xxs24_224", "maxvit_t", "timm:volo_d1_224"),
}
TABLE = (ROOT / "docs" / "architectures.md").read_text().splitlines()


def long_if_slow(name: str) -> object:
    return pytest.param(name, marks=pytest.mark.long) if name in SLOWEST else name


def test_the_table_has_all_networks_and_no_other() -> None:
    named = re.findall(r"^\| `([^`]+)`", "\n".join(TABLE), re.MULTILINE)
    assert sorted(named) == sorted([*AT_96, *AT_THEIR_SIZE, *HUB_NAMES])
    assert sum(name.startswith("timm:") for name in named) >= 60
    assert TABLE[: len(TABLE) - len(named)] == next(iter(table())).splitlines()


@pytest.mark.parametrize("name", [long_if_slow(name) for name in (*AT_96, *AT_THEIR_SIZE, *HUB_NAMES)])
def test_a_network_is_what_the_table_says(name: str) -> None:
    assert row_of(name) in TABLE
