"""docs/architectures.md is what the code finds today."""

import re

import pytest

from tests.support.architectures import AT_96, AT_THEIR_SIZE, HUB_NAMES, row_of, table
from tests.support.command import ROOT

pytestmark = pytest.mark.slow

TABLE = (ROOT / "docs" / "architectures.md").read_text().splitlines()


def test_the_table_has_all_networks_and_no_other() -> None:
    named = re.findall(r"^\| `([^`]+)`", "\n".join(TABLE), re.MULTILINE)
    assert sorted(named) == sorted([*AT_96, *AT_THEIR_SIZE, *HUB_NAMES])
    assert sum(name.startswith("timm:") for name in named) >= 60
    assert TABLE[: len(TABLE) - len(named)] == next(iter(table())).splitlines()


@pytest.mark.parametrize("name", [*AT_96, *AT_THEIR_SIZE, *HUB_NAMES])
def test_a_network_is_what_the_table_says(name: str) -> None:
    assert row_of(name) in TABLE
