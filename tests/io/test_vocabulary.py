"""The tokens of a folder's tokenizer, in each form it may have, and a tokenizer that gets more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kofn.core.checks import FailureError, InputError
from kofn.io.vocabulary import Tokens, read_tokens, tokenizer_files, with_tokens


def written(folder: Path, **files: Any) -> Path:
    for name, content in files.items():
        stem, _, ending = name.rpartition("_")
        (folder / f"{stem}.{ending}").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_tokens_of_each_form(tmp_path: Path) -> None:
    added = [{"id": 1, "content": "b", "special": True}, {"id": 2, "content": "<x>", "special": True}]
    for name, files in {
        "bpe": {"tokenizer_json": {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}}, "added_tokens": added}},
        "unigram": {"tokenizer_json": {"model": {"vocab": [["a", -1.5], ["b", -2.0]]}, "added_tokens": added}},
        "slow": {"vocab_json": {"a": 0, "b": 1}, "added_tokens_json": {"<x>": 2}},
        "wordpiece": {"vocab_txt": "a\nb\n<x>\n"},
    }.items():
        (tmp_path / name).mkdir()
        tokens = read_tokens(written(tmp_path / name, **files))
        assert dict(tokens.ids) == {"a": 0, "b": 1, "<x>": 2}, name
        assert tokens.next_id() == tokens.end == 3


def test_new_tokens_follow_in_the_others_order(tmp_path: Path) -> None:
    first = Tokens(tmp_path, {"a": 0, "b": 1}, {}, 2)
    settings = {"id": 2, "content": "<y>", "special": True, "lstrip": True}
    others = [
        Tokens(tmp_path, {"b": 0, "<z>": 3, "<y>": 2, "a": 1}, {"<y>": settings}, 4),
        Tokens(tmp_path, {"<z>": 0, "<w>": 1}, {}, 2),
    ]
    whole = with_tokens(first, others)
    assert dict(whole.ids) == {"a": 0, "b": 1, "<y>": 2, "<z>": 3, "<w>": 4}
    assert whole.added["<y>"] == {
        "id": 2,
        "content": "<y>",
        "single_word": False,
        "lstrip": True,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    assert tokenizer_files(first, first) == {}
    assert json.loads(tokenizer_files(first, whole)["added_tokens.json"]) == {"<y>": 2, "<z>": 3, "<w>": 4}
    written(tmp_path, tokenizer_json={"model": {"vocab": {"a": 0, "b": 1}}}, added_tokens_json={})
    files = tokenizer_files(first, whole)
    assert [entry["content"] for entry in json.loads(files["tokenizer.json"])["added_tokens"]] == ["<y>", "<z>", "<w>"]
    assert set(files) == {"tokenizer.json", "added_tokens.json"}


def test_ids_that_a_loader_would_number_otherwise_are_refused(tmp_path: Path) -> None:
    gaps = Tokens(tmp_path, {"a": 0, "b": 5}, {}, 2)
    with pytest.raises(
        InputError, match=r"ids of tokens have gaps \(the next added token would have id 2, the last is 5"
    ):
        with_tokens(gaps, [Tokens(tmp_path, {"c": 0})])
    assert dict(with_tokens(gaps, [gaps]).ids) == {"a": 0, "b": 5}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not readable JSON"),
        ("[]", "not a JSON object"),
        ('{"model": {"vocab": 3}}', "has no readable vocabulary of tokens and ids"),
        ('{"model": {}}', "has no readable vocabulary of tokens and ids"),
        ('{"model": {"vocab": {"a": -1}}}', "a token has no readable id"),
        ('{"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 1}]}', "a token has no readable id"),
        ('{"model": {"vocab": {"a": 0, "b": 0}}}', "two tokens have one id"),
        ('{"model": {"vocab": {"\\ud800": 0}}}', "half of a surrogate pair"),
        *(
            (f'{{"model": {{"vocab": {pieces}}}}}', "has no readable vocabulary of tokens and ids")
            for pieces in ("[1, 2]", "[[]]", "[null]", "[{}]", "[[[1], 2]]")
        ),
    ],
)
def test_damaged_files_are_named(content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(FailureError, match=says):
        read_tokens(tmp_path)


def test_a_list_of_tokens_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(b"a\n\xff\n")
    with pytest.raises(FailureError, match=r"vocab.txt: cannot be read as text"):
        read_tokens(tmp_path)
