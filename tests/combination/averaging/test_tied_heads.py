"""Members of a tied model, of which some save the head as a copy of the embedding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from kofn.combination import merge_recipe, task_arithmetic, weighted_mean
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
    with pytest.raises(InputError, match=r"member 1 .* has tensor 'lm_head.weight', which .*save it with both"):
        weighted_mean(paths[::-1])


def test_saved_with_both_a_tied_member_blends_with_one_that_is_not(tmp_path: Path) -> None:
    paths = [stored(tmp_path, str(i), i, head) for i, head in enumerate(("other", None, "copy"))]
    for path, tied in zip(paths, (False, True, False), strict=True):
        (Path(path) / "config.json").write_text(json.dumps({"tie_word_embeddings": tied}))
    blend = weighted_mean(paths[:2], out=tmp_path / "out")
    # The head of the tied member is its embedding.
    heads = [
        Checkpoint.open(path)[key].array().astype(np.float64)
        for path, key in zip(paths[:2], (HEAD, EMBED), strict=True)
    ]
    np.testing.assert_allclose(blend.result[HEAD], np.mean(heads, axis=0), rtol=1e-6)
    assert any("ties the head to" in note and note.startswith("member 1") for note in blend.info["warnings"])
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is False
    both = weighted_mean([paths[0], paths[2]], out=tmp_path / "out2")
    assert both.result[HEAD].shape == blend.result[HEAD].shape
    turned = weighted_mean(paths[1::-1], out=tmp_path / "turned")
    np.testing.assert_allclose(turned.result[HEAD], blend.result[HEAD], rtol=1e-6)
    assert json.loads((tmp_path / "turned/config.json").read_text())["tie_word_embeddings"] is False


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"tie_word_embeddings": True, "n": 1}, {"tie_word_embeddings": False, "n": 1}),
        ({"text_config": {"tie_word_embeddings": True}}, {"text_config": {"tie_word_embeddings": False}}),
        ({"n": 1}, {"n": 1}),
    ],
)
@pytest.mark.parametrize("copied", [False, True])
def test_a_head_that_differs_is_not_tied_by_the_configuration(
    config: dict[str, Any], wanted: dict[str, Any], copied: bool, tmp_path: Path
) -> None:
    table = np.arange(6.0, dtype=np.float32).reshape(3, 2)
    for i in (1, 2):
        folder = tmp_path / str(i)
        folder.mkdir()
        head = i * table + (0 if copied else 1)
        arrays = {"model.embed_tokens.weight": i * table, "lm_head.weight": head}
        safetensors.numpy.save_file(arrays, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config))
    blend = weighted_mean([tmp_path / "1", tmp_path / "2"], out=tmp_path / "out")
    said = any("differs from" in note and "tie_word_embeddings" in note for note in blend.info.get("warnings", []))
    assert said is (not copied and config != wanted)
    assert json.loads((tmp_path / "out/config.json").read_text()) == (config if copied else wanted)
    np.testing.assert_array_equal(blend.result["lm_head.weight"], 1.5 * table + (0 if copied else 1))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("saved", [None, "copy"])
def test_a_tied_configuration_beside_a_head_that_is_a_copy_stays_tied(
    order: tuple[int, int], saved: str | None, tmp_path: Path
) -> None:
    paths = [stored(tmp_path, f"m{i}", i, head) for i, head in enumerate((saved, "copy"))]
    for path, tied in zip(paths, (True, False), strict=True):
        (Path(path) / "config.json").write_text(json.dumps({"tie_word_embeddings": tied, "n": 1}))
    members = [paths[i] for i in order]
    for out in ("out", "recipe"):
        if out == "out":
            weighted_mean(members, out=tmp_path / out)
        else:
            listed = [{"model": path, "parameters": {"weight": 1}} for path in members]
            (tmp_path / "r.yaml").write_text(json.dumps({"merge_method": "linear", "models": listed}))
            merge_recipe(tmp_path / "r.yaml", out=tmp_path / out)
        assert set(Checkpoint.open(tmp_path / out)) == {EMBED, "w"}
        assert json.loads((tmp_path / out / "config.json").read_text()) == {"tie_word_embeddings": True, "n": 1}


def test_a_tied_configuration_that_cannot_be_untied_names_the_remedy(tmp_path: Path) -> None:
    # T5 scales what goes into a tied head, so that one apart, and equal to the embedding, is another model.
    for i, tied in enumerate((True, False)):
        (tmp_path / f"m{i}").mkdir()
        table = np.full((5, 3), i, np.float32)
        write_arrays(tmp_path / f"m{i}" / "model.safetensors", {"shared.weight": table, HEAD: table})
        (tmp_path / f"m{i}" / "config.json").write_text(json.dumps({"tie_word_embeddings": tied}))
    with pytest.raises(
        InputError, match=r"member 0 \(.*m0\) ties its head to its embedding: save it with both .*false"
    ):
        weighted_mean([tmp_path / "m0", tmp_path / "m1"], out=tmp_path / "out")
    # Where something else differs too, heads are not what keeps the models apart.
    for i, tied in enumerate((True, False)):
        settings = {"tie_word_embeddings": tied, "hidden_size": 7 + i}
        (tmp_path / f"m{i}" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="blend members of one architecture"):
        weighted_mean([tmp_path / "m0", tmp_path / "m1"], out=tmp_path / "out")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_tied_bert_blends_with_one_whose_head_saves_its_bias_twice(order: tuple[int, int], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table, bias = rng.normal(size=(2, 5, 3)).astype(np.float32), rng.normal(size=(2, 5)).astype(np.float32)
    embedding, head = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder"
    own = {f"{head}.weight": table[1] + 1, f"{head}.bias": bias[1] + 1}
    for i, more in enumerate(({}, own)):
        (tmp_path / f"m{i}").mkdir()
        arrays = {embedding: table[i], "cls.predictions.bias": bias[i], **more}
        write_arrays(tmp_path / f"m{i}" / "model.safetensors", arrays)
        (tmp_path / f"m{i}" / "config.json").write_text(json.dumps({"tie_word_embeddings": not more}))
    blend = weighted_mean([tmp_path / f"m{i}" for i in order], out=tmp_path / "out").result
    np.testing.assert_allclose(blend[f"{head}.weight"], (table[0] + own[f"{head}.weight"]) / 2, rtol=1e-6)
    np.testing.assert_allclose(blend[f"{head}.bias"], (bias[0] + own[f"{head}.bias"]) / 2, rtol=1e-5)
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {"tie_word_embeddings": False}
