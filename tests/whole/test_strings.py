"""What stands in code as the text "module:Name", which no other tool follows."""

import ast
import importlib
import re

import pytest

from tests.support.command import ROOT

ADDRESS = re.compile(r"(?:jobs|cluster|cam_ops)\.[\w.]+:\w+")


def addresses() -> dict[str, str]:
    """Return the addresses in our code, each with the first file that has it."""
    found: dict[str, str] = {}
    for path in [path for folder in ("cam_ops", "cluster", "jobs") for path in sorted((ROOT / folder).rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and ADDRESS.fullmatch(node.value):
                found.setdefault(node.value, str(path.relative_to(ROOT)))
    return found


def test_there_are_addresses_of_every_kind_of_replica() -> None:
    assert {
        "cluster.audit.replica:AuditReplica",
        "cluster.label.replica:open_replica",
        "cluster.rebox.replica:ReboxReplica",
    } <= addresses().keys()


@pytest.mark.parametrize(("address", "where"), addresses().items())
def test_an_address_leads_to_something_that_can_be_called(address: str, where: str) -> None:
    module, _, name = address.partition(":")
    assert callable(getattr(importlib.import_module(module), name, None)), f"{where}: {address}"
