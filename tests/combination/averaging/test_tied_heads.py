"""Members of a tied model, of which some save the head as a copy of the embedding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kofn.combination import task_arithmetic, weighted_mean
from kofn.core.checks import InputError
from kofn.io.tensor_writer import write_arrays
from kofn.io.tensors import Checkpoint

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def stored(folder: Path, name: str, seed: int, head: str | None, dtype: Any = np.float32) -> str:
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(5, 3)).astype(dtype)
    arrays = {EMBED: table, "w": rng.normal(size=4).astype(dtype)}
    if head is not None:
        arrays[HEAD] = table if head == "copy" else table + 1
    (folder / name).mkdir()
    write_arrays(folder / name / "model.safetensors", arrays)
    return str(folder / name)


@pytest.mark.parametrize("heads", [("copy", None), (None, "copy"), ("copy", None, "copy")])
def test_a_head_that_is_a_copy_is_left_out(heads: tuple[str | None, ...], tmp_path: Path) -> None:
    paths = [stored(tmp_path, str(i), i, head) for i, head in enumerate(heads)]
    blend = weighted_mean(paths, out=tmp_path / "out")
    assert set(Checkpoint.open(tmp_path / "out")) == {EMBED, "w"}
    tables = [Checkpoint.open(path)[EMBED].array().astype(np.float64) for path in paths]
    np.testing.assert_allclose(blend.result[EMBED], np.mean(tables, axis=0), rtol=1e-6)
    notes = [note for note in blend.info["warnings"] if "copy of its embedding" in note]
    assert [note.partition(" ")[2][0] for note in notes] == [str(i) for i, head in enumerate(heads) if head]
    arrays = [{name: tensor.array() for name, tensor in Checkpoint.open(path).items()} for path in paths]
    assert set(weighted_mean(arrays).result) == {EMBED, "w"}


def test_a_base_may_be_the_one_that_saves_it(tmp_path: Path) -> None:
    base, one = stored(tmp_path, "base", 0, "copy"), stored(tmp_path, "one", 1, None)
    blend = task_arithmetic([one], base=base, weights=[1], out=tmp_path / "out")
    np.testing.assert_allclose(blend.result[EMBED], Checkpoint.open(one)[EMBED].array(), rtol=1e-5)


def test_heads_that_all_save_are_blended(tmp_path: Path) -> None:
    paths = [stored(tmp_path, str(i), i, "copy") for i in range(2)]
    assert HEAD in weighted_mean(paths).result


def test_a_head_of_its_own_is_no_copy(tmp_path: Path) -> None:
    paths = [stored(tmp_path, str(i), i, head) for i, head in enumerate(("other", None))]
    with pytest.raises(InputError, match=r"member 1 .* lacks tensor 'lm_head.weight'"):
        weighted_mean(paths)
    assert HEAD in weighted_mean(paths, skip=HEAD).result
