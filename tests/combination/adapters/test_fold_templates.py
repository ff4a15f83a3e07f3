"""The chat template beside a folded model is the one that its adapter was trained with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from command_line import run
from lora import P

from kofn.io.companions import read_chat_template

FACTORS = {"l.lora_A.weight": np.ones((1, 2), np.float32), "l.lora_B.weight": np.ones((2, 1), np.float32)}
CONFIG = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["l"]}


def tokenizer(folder: Path, template: Any = None, end: Any = None, *, beside: bool = False) -> None:
    """A tokenizer, its template in the configuration or in a file beside it."""
    config = {"eos_token": end} if end is not None else {}
    if template is not None and not beside:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0, "b": 1}}}))
    if template is not None and beside:
        (folder / "chat_template.jinja").write_text(template)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("base").mkdir()
    safetensors.numpy.save_file({"l.weight": np.zeros((2, 2), np.float32)}, "base/model.safetensors")
    Path("base/config.json").write_text("{}")
    for name in ("one", "two"):
        Path(name).mkdir()
        safetensors.numpy.save_file({P + k: v for k, v in FACTORS.items()}, f"{name}/adapter_model.safetensors")
        Path(name, "adapter_config.json").write_text(json.dumps(CONFIG))
    return tmp_path


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("before", [None, "BASE"])
def test_the_adapters_template_is_taken_and_told(
    beside: bool, before: str | None, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer(folders / "base", before)
    tokenizer(folders / "one", "ADAPTER", beside=beside)
    code, _, err = run(capsys, "combine", "base", "one", "-o", "out")
    assert code == 0
    assert read_chat_template(folders / "out") == "ADAPTER"
    assert json.loads(Path("out/tokenizer_config.json").read_text()).get("chat_template") == "ADAPTER"
    assert "chat_template.jinja is of adapter one, which was trained with it" in err
    assert ("differs from the base's" in err) is (before is not None)


def test_a_template_is_kept_where_adapters_have_none_or_the_same(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer(folders / "base", "SAME", "</s>")
    tokenizer(folders / "one", "SAME", {"content": "</s>"}, beside=True)
    code, _, err = run(capsys, "combine", "base", "one", "two", "-o", "out")
    assert (code, err) == (0, "")
    for name in ("tokenizer_config.json", "tokenizer.json"):
        assert Path("out", name).read_bytes() == Path("base", name).read_bytes()
    assert not Path("out/chat_template.jinja").exists()


def test_adapters_of_unlike_templates_are_told_and_one_taken_away_has_no_say(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer(folders / "base", "BASE")
    tokenizer(folders / "one", "ONE")
    tokenizer(folders / "two", [{"name": "tools", "template": "X"}, {"name": "default", "template": "TWO"}])
    code, _, err = run(capsys, "combine", "base", "one", "two", "-o", "both")
    assert code == 0
    assert "adapter one, adapter two were trained with unlike chat templates, and the base's is kept" in err
    assert read_chat_template(folders / "both") == "BASE"
    code, _, err = run(capsys, "combine", "base", "one", "two", "--weights", "-0.5,1", "-o", "less")
    assert code == 0
    assert read_chat_template(folders / "less") == "TWO"


@pytest.mark.parametrize(("end", "text"), [(None, "names no end"), ("</s>", "with '</s>'")])
def test_another_end_of_texts_is_told(
    end: str | None, text: str, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer(folders / "base", None, end)
    tokenizer(folders / "one", None, {"content": "<|im_end|>"})
    code, _, err = run(capsys, "combine", "base", "one", "-o", "out")
    assert code == 0
    assert (
        f"adapter one ends its texts with '<|im_end|>' (eos_token), the base, whose tokenizer is copied, {text}" in err
    )
