"""The documents: the real parser takes their commands, their links lead somewhere, their lists are complete."""

import re
from contextlib import suppress
from dataclasses import fields, is_dataclass
from itertools import takewhile
from pathlib import Path
from pkgutil import resolve_name

import pytest

from cam_ops.settings import BoxConfig, ExplainConfig, MapConfig, ModelConfig, RefineConfig
from cluster.label.config import LabelConfig
from jobs.commands import run
from jobs.flags import parse
from tests.support.command import ROOT
from tests.whole.test_readme import CONFIGS, README, commands_of

DOCS = {page.name: page.read_text() for page in sorted((ROOT / "docs").glob("*.md"))}
PAGES = {
    **{page.name: page.read_text() for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md") if page.exists()},
    **{f"docs/{name}": text for name, text in DOCS.items()},
}


def commands_shown(text: str) -> list[list[str]]:
    """Return the commands of a document's code blocks, fenced or indented."""
    indented = "\n".join(re.findall(r"^    (.+)$", text, re.MULTILINE))
    return [*commands_of(text), *commands_of(f"```sh\n{indented}\n```")]


SHOWN = [
    pytest.param(words, id=f"{name}: {' '.join(words)}")
    for name, text in PAGES.items()
    for words in commands_shown(text)
]


@pytest.mark.parametrize("words", SHOWN)
def test_a_command_of_a_document_is_parsed(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("job.yaml").write_text(re.findall(r"```yaml\n(.*?)```", DOCS["commands.md"], re.DOTALL)[0])
    if {"--help", "--help-all", "--version", "--completion"} & set(words):
        with suppress(SystemExit):
            assert run(list(takewhile(lambda word: word != ">", words))) == 0
        return
    assert isinstance(parse(CONFIGS[words[0]], words[1:], words[0]), CONFIGS[words[0]])


SNIPPETS = [
    pytest.param(code, id=f"{name} {number}")
    for name, text in PAGES.items()
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
]


@pytest.mark.parametrize("code", SNIPPETS)
def test_python_in_a_document_is_python(code: str) -> None:
    compile(code, "a document", "exec")


def heading_anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files_and_headings(name: str) -> None:
    text = re.sub(r"```.*?```", "", PAGES[name], flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert anchor in map(heading_anchor, headings), link


def test_the_readme_is_read_in_one_go() -> None:
    assert len(README.splitlines()) <= 160
    assert len(README.encode()) <= 9000


def test_the_list_of_documents_has_each_once() -> None:
    listed = re.findall(r"^\* \[(\S+)\]\(\1\)", DOCS["README.md"], re.MULTILINE)
    assert sorted(listed) == sorted(DOCS.keys() - {"README.md"})


def test_the_table_of_flags_has_each_flag_of_label_with_its_default() -> None:
    rows = re.findall(r"^\| `--([\w-]+)` \| (\S+) \|", DOCS["label.md"].split("## All flags")[1], re.MULTILINE)
    model = ModelConfig(model="resnet50")
    config = LabelConfig(images=("photos",), out="run", model=model)
    nested = ExplainConfig(), RefineConfig(), MapConfig(), BoxConfig()
    defaults = {
        field.name.replace("_", "-"): as_shown(getattr(record, field.name))
        for record in (config, model, *nested)
        for field in fields(record)
        if not is_dataclass(getattr(record, field.name))
    }
    required = dict.fromkeys(("images", "out", "model"), "required")
    assert sorted(rows) == sorted({**defaults, **required, "config": "-", "file-limits": "1"}.items())


def as_shown(default: object) -> str:
    """Return a default as the table has it: a dash for none, `off` for a switch, several values with blanks."""
    if default is False:
        return "off"
    values = default if isinstance(default, tuple) else () if default is None else (default,)
    return f"`{' '.join(map(str, values))}`" if values else "-"


NAMED = {name: text for name, text in PAGES.items() if name != "docs/measurements.md"}  # figures of earlier commits


@pytest.mark.parametrize("name", NAMED)
def test_what_a_document_names_of_the_code_is_there(name: str) -> None:
    for dotted in re.findall(r"`((?:cluster|cam_ops|jobs)(?:\.\w+)+)", NAMED[name]):
        assert resolve_name(dotted), dotted
    for path in re.findall(r"`((?:cluster|cam_ops|jobs|tests)/[a-z_/]+(?:\.py)?)`", NAMED[name]):
        assert (ROOT / path).exists(), path
    for test in re.findall(r"`(test_\w+)`", NAMED[name]):
        assert list((ROOT / "tests").rglob(f"{test}.py")), test


@pytest.mark.parametrize("name", NAMED)
def test_what_a_document_tells_to_make_is_a_target(name: str) -> None:
    shown = re.findall(r"(?:^|`)make ((?:[a-z]+ ?)+?)(?=`|$|  )", NAMED[name], re.MULTILINE)
    targets = {word for words in shown for word in words.split()}
    assert targets <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
