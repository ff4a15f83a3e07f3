"""`kofn allocate model/` on files: what is printed, written, applied and refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import refused, run

from kofn.io.tensor_writer import write_arrays
from kofn.io.tensors import Checkpoint


@pytest.fixture
def model(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    path = folder / "model"
    path.mkdir()
    tensors = {
        f"layers.{i}.{part}.weight": (rng.standard_t(3, size=(16, 64)) * 4**i).astype(np.float32)
        for i in range(3)
        for part in ("q_proj", "k_proj", "out")
    }
    tensors["embed_tokens.weight"] = rng.normal(size=(20, 64)).astype(np.float32)
    write_arrays(path / "model.safetensors", tensors)
    for name in ("config.json", "tokenizer.json", "README.md", "modeling_own.py"):
        (path / name).write_text("{}")
    return path


def test_a_mean_alone_prints_the_table(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text, err = run(capsys, "allocate", "model", "--bits", 3, "--group-size", 32)
    assert code == 0, err
    assert "9 tensors of 9,216 weights take part" in text
    assert "  bits  tensors  share of weights" in text
    assert "errors are the weights' own (no statistics), squared" in text
    assert "all at 3 bits:" in text
    assert "is saved" in text
    assert "no other plan fits into one more tenth of a bit" in text
    assert "as they are: 1 more, embed_tokens.weight" in text


def test_the_plan_is_written_applied_and_exported(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ("allocate", "model", "--bits", "3.5", "--group-size", 32, "-o", "plan.json", "--report", "r.html")
    code, text, err = run(capsys, *call, "--apply", "out", "--json", "--fix", "layers.0.out=8", "--tie", "*.q_proj")
    assert code == 0, err
    answer = json.loads(text)
    assert answer["tensors"]["layers.0.out.weight"] == 8
    assert len({answer["tensors"][f"layers.{i}.q_proj.weight"] for i in range(3)}) == 1
    page = Path("r.html").read_text()
    for words in ("What a larger budget buys", "Who gets what", "layers.2.out.weight", "--bits 3.5", answer["digest"]):
        assert words in page
    assert {path.name for path in Path("out").iterdir()} == {path.name for path in model.iterdir()}
    written, source = Checkpoint.open("out"), Checkpoint.open("model")
    assert (
        len(np.unique(written["layers.2.out.weight"].array()[0, :32])) <= 2 ** answer["tensors"]["layers.2.out.weight"]
    )
    np.testing.assert_array_equal(written["embed_tokens.weight"].array(), source["embed_tokens.weight"].array())
    used = ("allocate", "model", "--use", "plan.json", "--apply", "again", "--format", "llmcompressor", "-o", "r.yaml")
    assert run(capsys, *used)[0] == 0
    assert Path("again/model.safetensors").read_bytes() == Path("out/model.safetensors").read_bytes()
    assert "config_groups" in Path("r.yaml").read_text()
    # What servers compute as one has one width, unless ties are given.
    fused = ("allocate", "model", "--bits", 3, "--group-size", 32, "--format", "auto-round", "-o", "a.json", "--json")
    levels = json.loads(run(capsys, *fused)[1])["tensors"]
    assert all(levels[f"layers.{i}.q_proj.weight"] == levels[f"layers.{i}.k_proj.weight"] for i in range(3))


def test_sparsity(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text, err = run(capsys, "allocate", "model", "--sparsity", "70%", "--apply", "out")
    assert code == 0, err
    assert "% left" in text
    written = Checkpoint.open("out")
    zeros = sum(int((written[name].array() == 0).sum()) for name in written if name.startswith("layers"))
    assert 0.7 <= zeros / 9216 < 0.75


def test_statistics_are_named(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"layers.{i}.{part}" for i in range(3) for part in ("q_proj", "k_proj", "out")]
    np.savez("s.npz", **{name: np.array([10.0 if name.endswith("out") else 0.1]) for name in names})
    code, text, err = run(capsys, "allocate", "model", "--bits", 4, "--statistics", "s.npz", "--json")
    assert code == 0, err
    answer = json.loads(text)
    assert (answer["statistic"], answer["criterion"]) == ("scale", "relative")
    assert answer["tensors"]["layers.0.out.weight"] > answer["tensors"]["layers.0.q_proj.weight"]


def test_beforehand(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = run(capsys, "allocate", "model", "--bits", 3, "--dry-run", "-o", "plan.json")
    assert code == 0
    assert "would measure 9 tensors of 9,216 weights" in text
    assert not Path("plan.json").exists()


def test_refusals(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_arrays("other.safetensors", {"a.weight": np.ones((8, 64), np.float32)})
    assert run(capsys, "allocate", "model", "--bits", 3, "-o", "plan.json")[0] == 0
    Path("curves.csv").write_text("layer,2,3\na,2,1\nb,3,1\n")
    for words, call in {
        "give --bits 3.0 or --sparsity 0.7": ("model",),
        "--bits is of a model on disk, which curves.csv is not": ("curves.csv", "--bits", 3),
        "--budget is of tables": ("model", "--budget", 3),
        "--id is of tables": ("model", "--bits", 3, "--id", "layer"),
        "can have a mean from 2 to 8": ("model", "--bits", 9),
        "end the name in .json": ("model", "--bits", 3, "-o", "plan.csv"),
        "end the name in .yaml": ("model", "--bits", 3, "--format", "llmcompressor", "-o", "plan.json"),
        "-o names the file": ("model", "--bits", 3, "--format", "llmcompressor"),
        "--format gguf": ("model", "--bits", 3, "--format", "gguf", "-o", "p.json"),
        "write PATTERN=LEVEL": ("model", "--bits", 3, "--fix", "lm_head"),
        "leave out --bits": ("model", "--use", "plan.json", "--bits", 3),
        "of another checkpoint": ("other.safetensors", "--use", "plan.json", "--apply", "out"),
        "is the input itself": ("model", "--bits", 3, "--apply", "model"),
        "--method is not taken": ("model", "--bits", 3, "--method", "hull_greedy"),
        "--time-limit is not taken": ("model", "--bits", 3, "--time-limit", 5),
        "--max-memory 1MB": ("model", "--bits", 3, "--max-memory", "1MB"),
        "widths[0]=2.5": ("model", "--bits", 3, "--widths", "2.5,4"),
        "no such file": ("model", "--bits", 3, "--statistics", "none.safetensors"),
    }.items():
        assert words in refused(capsys, "allocate", *call), words


def test_one_width_for_all_is_told_as_what_it_is(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mean between two widths is no width, and the next tenth of a bit may be too little for a whole tensor."""
    text = run(capsys, "allocate", "model", "--bits", 3.1, "--tie", "*", "--group-size", 32)[1]
    assert "all at the width below or above 3.1 bits, a share of each tensor" in text
    assert "% more" in text
    assert "no other plan fits into one more tenth of a bit" in text


def test_no_place_that_is_read_is_written_and_all_are_looked_at_before_the_work(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_arrays("stats.safetensors", {"layers.0.q_proj": np.ones(64, np.float32)})
    Path("foreign").mkdir()
    write_arrays("foreign/other.safetensors", {"a": np.ones(2, np.float32)})
    assert run(capsys, "allocate", "model", "--bits", 3, "-o", "plan.json")[0] == 0
    (model / "1_Pooling").mkdir()
    (model / "1_Pooling" / "config.json").write_text("{}")
    Path("link.safetensors").symlink_to(model / "model.safetensors")
    Path("folder.json").mkdir()
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    for words, call in {
        "--apply stats.safetensors is the input itself": (
            *("--statistics", "stats.safetensors"),
            *("--apply", "stats.safetensors"),
        ),
        "--apply link.safetensors is a file of model": ("--apply", "link.safetensors"),
        "--apply model/model.safetensors is a file of model": ("--apply", "model/model.safetensors"),
        "--apply out.json and -o are one file": ("--apply", "out.json"),
        "checkpoints are safetensors": ("--apply", "out.csv"),
        "there is no folder": ("--apply", "none/out"),
        "holds 'other.safetensors', which is no earlier output": ("--apply", "foreign"),
        "-o model/1_Pooling/config.json is a file of model": ("-o", "model/1_Pooling/config.json"),
        "-o folder.json is a folder": ("-o", "folder.json"),
    }.items():
        asked = ("allocate", "model", "--bits", 3, *(() if "-o" in call else ("-o", "out.json")), *call)
        assert words in refused(capsys, *asked), words
    asked = ("allocate", "model", "--use", "plan.json", "--report", "r.html", "--apply")
    assert "is the input itself" in refused(capsys, *asked, "plan.json")
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
