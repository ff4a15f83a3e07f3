"""A merge rule of ten lines: what follows from it in the verb, recipes, the command line, the laws and the index."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from law_runs import enough_of, holds

import kofn
from kofn.combination import merge_recipe
from kofn.combination.rules import Rule, find_merge_rule, merge_rule, merge_rules
from kofn.core import dispatch
from kofn.core.checks import InputError
from kofn.indexing import packages
from kofn.io.tensor_writer import write_arrays
from kofn.io.tensors import Checkpoint
from kofn.laws import laws_of

MEDIAN = '''import numpy as np
from kofn.combination.rules import Rule, merge_rule

@merge_rule(cost="O(m log m d)", exact="the median of every entry", paper="folklore")
class CoordinateMedian(Rule):
    """The median of every entry."""
    form = "elementwise"
    takes_weights = False
    def blend(self, block, total, spare):
        np.median(block.rows, axis=0, out=total)
        return True
coordinate_median = CoordinateMedian.method
'''
# A type checker knows the methods of this library, and no plug-in's.
NAME: Any = "coordinate_median"
NAMES = [f"layers.{i}.w" for i in range(4)]


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The rule as an installed plug-in: a module and what its installation says of it."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "median_plugin.py").write_text(MEDIAN)
    info = folder / "median_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: median-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[kofn.methods]\ncoordinate_median = median_plugin:coordinate_median\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", str(folder))
        dispatch._plugins.cache_clear()
        yield folder
        dispatch._plugins.cache_clear()


@pytest.fixture
def members(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for i, path in enumerate(paths):
        path.mkdir()
        rng = np.random.default_rng(i)
        arrays = {name: rng.normal(size=(60, 50)).astype(np.float32) for name in NAMES}
        write_arrays(path / "model.safetensors", arrays)
    return paths


def medians(members: list[Path]) -> dict[str, np.ndarray]:
    states = [{name: tensor.array() for name, tensor in Checkpoint.open(path).items()} for path in members]
    return {name: np.median([state[name] for state in states], axis=0) for name in NAMES}


def test_it_is_under_twelve_lines() -> None:
    assert len([line for line in MEDIAN.splitlines() if line]) < 12


@pytest.mark.usefixtures("plugin")
def test_the_verb_has_it(members: list[Path]) -> None:
    blend = kofn.combine(members, method=NAME, skip="layers.3.*", max_memory=10**6)
    want = medians(members)
    assert all(np.array_equal(blend.result[name], want[name]) for name in NAMES[:3])
    assert np.array_equal(blend.result[NAMES[3]], Checkpoint.open(members[0])[NAMES[3]].array())
    assert blend.method == "coordinate_median"
    assert blend.form == "elementwise"
    assert blend.weights is None
    with pytest.raises(InputError, match="coordinate_median"):
        kofn.combine(members, method=NAME, weights=[1, 2, 3])


@pytest.mark.usefixtures("plugin")
def test_its_function_says_what_it_takes() -> None:
    function = importlib.import_module("median_plugin").coordinate_median
    assert [*inspect.signature(function).parameters][:4] == ["members", "out", "only", "skip"]
    assert (inspect.getdoc(function) or "").startswith("The median of every entry.\n\nArgs:\n    members: ")
    assert function([[0.0, 4.0], [1.0, 5.0], [9.0, 6.0]]).result.tolist() == [1.0, 5.0]
    assert "coordinate_median" in [entry.name for entry in kofn.methods("combine")]


@pytest.mark.usefixtures("plugin")
def test_recipes_have_it(members: list[Path]) -> None:
    part = {"match": "layers.[01].*", "method": "coordinate_median"}
    blend = merge_recipe({"members": members, "method": "weighted_mean", "tensors": [part]})
    want = medians(members)
    assert all(np.array_equal(blend.result[name], want[name]) for name in NAMES[:2])
    mean = kofn.combine(members).result
    assert all(np.array_equal(blend.result[name], mean[name]) for name in NAMES[2:])
    assert blend.info["parts"] == [2, 2]
    with pytest.raises(InputError, match="coordinate_median takes no weights"):
        merge_recipe({"members": members, "method": "weighted_mean", "tensors": [{**part, "weights": [1, 2, 3]}]})
    with pytest.raises(
        InputError, match="these do: arcee_fusion, balanced_mean, coordinate_median, dare, fisher_merging, "
    ):
        merge_recipe({"members": members, "method": "greedy_soup"})


@pytest.mark.usefixtures("plugin", "members")
def test_the_command_line_has_it(kofn: Callable[..., CompletedProcess[str]], tmp_path: Path) -> None:
    assert "The median of every entry." in kofn("combine", "--method", "coordinate_median", "--help").stdout
    done = kofn("combine", "a", "b", "c", "--method", "coordinate_median", "--measure", "-o", "out", "--json")
    assert json.loads(done.stdout)["method"] == "coordinate_median"
    want = medians([tmp_path / name for name in ("a", "b", "c")])
    assert all(np.array_equal(tensor.array(), want[name]) for name, tensor in Checkpoint.open(tmp_path / "out").items())


@pytest.mark.usefixtures("plugin")
def test_a_killed_run_goes_on(members: list[Path], tmp_path: Path) -> None:
    code = (
        "import glob, os, signal, sys, time, kofn; from kofn.combination._sweep import blockwise\n"
        "blockwise._BATCH = 3000\n"
        "once = blockwise.Sweep._batch\n"
        "def batch(self, names, *rest):\n"
        "    if names[0] == sys.argv[1]:\n"
        "        (journal,) = glob.glob(os.path.dirname(sys.argv[2]) + '/.out.kofn-job-*/journal.jsonl')\n"
        "        until = time.monotonic() + 30\n"
        # What the disk has is noted while the next batch is blended.
        "        while open(journal).read().count('\\n') < 2 and time.monotonic() < until: time.sleep(0.01)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return once(self, names, *rest)\n"
        "blockwise.Sweep._batch = batch\n"
        "plan = kofn.combine(sys.argv[3:], method='coordinate_median', out=sys.argv[2])\n"
        "print(plan.info['resumed'])\n"
    )
    out = tmp_path / "out"

    def run(killed_at: str) -> CompletedProcess[str]:
        command = [sys.executable, "-c", code, killed_at, str(out), *map(str, members)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))

    assert run("layers.2.w").returncode == -signal.SIGKILL
    assert not out.exists()
    assert run("nothing").stdout.split() == ["2"]
    want = medians(members)
    assert all(np.array_equal(tensor.array(), want[name]) for name, tensor in Checkpoint.open(out).items())


@pytest.mark.usefixtures("plugin")
def test_it_passes_the_laws() -> None:
    entry = dispatch.methods_of("combine")["coordinate_median"]
    for name in laws_of(entry):
        checked = holds(entry, name)
        if name in entry.draws.silent_laws:
            assert checked == 0, name
        else:
            assert checked >= enough_of(entry, name) // 2, name


def test_a_family_exports_it(tmp_path: Path) -> None:
    family = tmp_path / "robust"
    family.mkdir()
    (family / "_coordinate_median.py").write_text(MEDIAN)
    assert packages.exports(family / "_coordinate_median.py") == ["coordinate_median"]
    assert packages.homes(tmp_path) == {"coordinate_median": "robust._coordinate_median"}
    stub = packages.stub_text(family, tmp_path)
    assert "def coordinate_median(\n    members: Iterable[Any],\n    *,\n    **files: Unpack[FilesAndThreads]," in stub
    assert "from kofn.robust import coordinate_median as" in packages.stub_text(tmp_path, tmp_path)
    (family / "_coordinate_median.py").write_text(MEDIAN.rsplit("\n", 2)[0])
    with pytest.raises(ValueError, match=r"write coordinate_median = CoordinateMedian\.method below it"):
        packages.exports(family / "_coordinate_median.py")


@pytest.mark.usefixtures("plugin")
def test_rules_are_found_by_name() -> None:
    found = find_merge_rule("ties")
    assert found is not None
    assert found.__name__ == "Ties"
    assert find_merge_rule("greedy_soup") is None
    assert {"ties", "coordinate_median", "weighted_mean"} <= merge_rules().keys()


def test_a_rule_must_blend() -> None:
    class Idle(Rule):
        """Blends nothing."""

    idle: Any = Idle
    with pytest.raises(TypeError, match="Idle is not complete: it lacks blend"):
        merge_rule(cost="none", exact="nothing", paper="folklore")(idle)
