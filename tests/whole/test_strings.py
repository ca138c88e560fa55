"""What stands in code as the text "module:Name", which no other tool follows."""

import ast
import importlib
import re
from typing import get_type_hints

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


def calls() -> dict[str, tuple[set[str], set[str]]]:
    """Return the files that call methods by name, `held.call("method")`, with the addresses in them and the methods."""
    found = {}
    for path in [path for folder in ("cluster", "jobs") for path in sorted((ROOT / folder).rglob("*.py"))]:
        tree = ast.parse(path.read_text())
        texts = {
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        methods = {
            node.args[0].value
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "call"
            if node.args and isinstance(node.args[0], ast.Constant)
        }
        if methods:
            found[str(path.relative_to(ROOT))] = {text for text in texts if ADDRESS.fullmatch(text)}, methods
    return found


@pytest.mark.parametrize("where", calls())
def test_a_method_that_is_called_by_its_name_is_one_of_what_the_file_holds(where: str) -> None:
    held, methods = calls()[where]
    named = [getattr(importlib.import_module(address.partition(":")[0]), address.partition(":")[2]) for address in held]
    known = [kind if isinstance(kind, type) else get_type_hints(kind)["return"] for kind in named]
    assert all(any(hasattr(kind, method) for kind in known) for method in methods), (held, methods)
