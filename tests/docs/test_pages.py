"""What README and the pages say holds: commands run or parse, blocks run, names exist, entries end as they must."""

from __future__ import annotations

import importlib
import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sklearn.datasets import load_digits

from kofn import _index
from kofn.cli import COMMANDS
from kofn.finding import find

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
VERBS = ("select", "assign", "allocate", "combine")


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """The generator of the reference, which stands beside the pages."""
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    return importlib.import_module("reference")


def commands() -> list[str]:
    """Every command of a verb that README or a page shows, each once."""
    texts = [README, *PAGES.values()]
    shown = [match for text in texts for match in re.findall(r"(?:^\$ |`)(kofn [^`\n]+)", text, re.MULTILINE)]
    return sorted({line for line in shown if line.split()[1] in VERBS})


def test_the_first_command_of_the_readme_prints_what_the_readme_shows(tmp_path: Path) -> None:
    block = README.split("```console\n", 1)[1].split("```", 1)[0]
    line, *expected = block[block.index("$ kofn") :].strip().splitlines()
    _, *arguments = shlex.split(line.removeprefix("$ "))
    arguments[1] = str(ROOT / arguments[1])
    code = "from kofn.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    shown = (done.stdout + done.stderr).splitlines()
    assert [re.sub(r"in [\d.]+ s", "", text) for text in shown] == [re.sub(r"in [\d.]+ s", "", t) for t in expected]
    assert (tmp_path / "picks.csv").exists()
    assert (tmp_path / "why.html").exists()


def test_every_flag_is_on_the_page_of_commands() -> None:
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    page = importlib.import_module("tables").commands()
    for name in COMMANDS:
        command = importlib.import_module(f"kofn.cli.{name}").command
        for flag in (flag for param in command.params for flag in param.opts if flag.startswith("-")):
            assert f"`{flag}`" in page.split(f"## kofn {name}\n", 1)[1].split("\n## kofn", 1)[0], f"{name} {flag}"


def test_the_shipped_digits_are_scikit_learns() -> None:
    pool, digits = np.load(ROOT / "examples" / "digits.npz"), load_digits()
    assert np.array_equal(pool["X"], digits.data)
    assert np.array_equal(pool["images"], digits.images.astype(np.uint8) * 15)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_files_that_a_page_names_are_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:tests|claims|src|benchmarks|docs|examples|\.ci)/[\w./-]+)`", text))
    assert named
    # What the documentation's build writes is there only after it.
    missing = {path for path in named if not (ROOT / path).exists() and "_build" not in path and "NNN" not in path}
    assert not missing


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.DOTALL), ids=lambda text: text[7:20])
def test_a_python_block_of_the_readme_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(block, {})


@pytest.mark.parametrize("line", commands())
def test_a_shown_command_has_only_flags_and_methods_that_exist(line: str) -> None:
    _, verb, *arguments = shlex.split(line)
    command = importlib.import_module(f"kofn.cli.{verb}").command
    flags = {flag for parameter in command.params for flag in parameter.opts}
    methods = _index.entries(verb)
    for flag, value in itertools.pairwise([*arguments, ""]):
        if flag in ("-m", "--method"):
            assert value in methods, f"{line}: no method {value}"
            flags |= {f"--{option.replace('_', '-')}" for option in methods[value].options}
    assert {word for word in arguments if word.startswith("-")} <= flags


def test_every_name_that_a_page_links_exists(reference: ModuleType) -> None:
    known = reference.names()
    linked = {name for text in PAGES.values() for name in re.findall(r"\{m\}`(\w+)`", text)}
    assert len(linked) > 40
    assert linked <= set(known)


def test_the_command_that_finds_things_is_shown_with_words_that_find_something() -> None:
    for words in re.findall(r"`kofn find ([^`]+)`", README):
        assert find(words)


def test_everything_public_has_an_entry_that_ends_with_its_places(reference: ModuleType) -> None:
    pages = reference.pages()
    for row in reference.rows():
        if not row.get("family"):
            continue
        text = pages[f"{row['family']}.md"]
        start = text.index(f"({reference._anchor(row)})=")
        ends = re.search(r'<p class="ends">(.*?)</p>', text[start:])
        assert ends is not None
        for label in ("code", "test", *(["claim"] if row.get("claim") else [])):
            assert f">{label}</a>" in ends[1], f"{row['name']} has no {label}"


def test_links_to_code_lead_to_files(reference: ModuleType) -> None:
    for name, text in reference.pages().items():
        for path in re.findall(r'code/([^"]+)\.txt"', text):
            assert (ROOT / path).is_file(), f"{name}: {path}"
