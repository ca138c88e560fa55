"""Help, versions and completion: what one reads before a command runs."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from jobs.commands import COMMANDS, run
from jobs.flags import parse
from jobs.screens import SCREENS
from jobs.shell import config_of
from jobs.usage import OF_ALL, flags_of, positionals_of
from tests.support.command import ROOT, Command
from tests.whole.test_readme import commands_of


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run(list(words)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_one_screen_and_begins_with_examples_that_parse(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(capsys, command, "--help")
    assert text == shown(capsys, command, "anything", "-h")
    lines = text.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    examples, flags = re.search(r"\n\n(  python.*?)\n\n(.*?)\n\n", text, re.DOTALL).groups()
    found = commands_of(f"```sh\n{examples}\n```")
    assert 2 <= len(found) <= 3
    for words in found:
        assert isinstance(parse(config_of(words[0]), words[1:], words[0]), config_of(words[0]))
    assert command in {words[0] for words in found}
    known = {*flags_of(config_of(command)), *OF_ALL}
    named = set(re.findall(r"--[a-z][\w-]*", flags))
    assert named <= known
    needed = {"label": {"--images", "--model", "--out"}, "export": {"--to", "--out"}, "bench": {"--images"}}
    assert needed.get(command, set()) <= named
    assert all(word in flags for word in positionals_of(config_of(command)))


def test_pages_that_help_names_are_there() -> None:
    for _, pages in SCREENS.values():
        assert all((ROOT / "docs" / Path(page).name).exists() for page in pages.split(", "))


def test_the_list_of_commands_fits_one_screen_too(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "--help").splitlines()
    assert (len(lines) <= 24, max(map(len, lines)) <= 80) == (True, True)
    assert all(any(line.startswith(f"  {command} ") for line in lines) for command in COMMANDS)


def test_help_all_lists_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(["label", "--help-all"])
    text = capsys.readouterr().out
    assert all(flag in text for flag in [*flags_of(config_of("label")), "--config"])


def test_versions_are_those_that_are_installed_and_nothing_is_imported_for_them() -> None:
    line = "import sys; from jobs.commands import run; run(['--version']); print({'torch', 'ray'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", line], cwd=ROOT, capture_output=True, text=True)
    python = ".".join(map(str, sys.version_info[:3]))
    versions = f"camray {version('camray')}, Python {python}, ray {version('ray')}, torch {version('torch')}"
    assert done.stdout.splitlines() == [versions, "set()"]


COMPLETES = """
source {script}
COMP_WORDS=({words}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
$(complete -p camray | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def test_bash_completes_commands_flags_and_values(tmp_path: Path) -> None:
    script = tmp_path / "camray"
    words = [sys.executable, "-m", "jobs", "--completion", "bash"]
    script.write_text(subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout)

    def completed(words: str) -> list[str]:
        line = COMPLETES.format(script=script, words=words)
        return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout.split()

    assert completed("camray cal") == ["calibrate"]
    assert completed("camray label --thr") == ["--threshold"]
    assert completed("camray export run --to coco-") == ["coco-results"]


def test_a_shell_that_is_not_known_is_refused() -> None:
    assert "expects bash or zsh, got fish" in Command("--completion", "fish").result["error"]
