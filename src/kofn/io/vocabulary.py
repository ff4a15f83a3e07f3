"""The tokens of a checkpoint's tokenizer, by their rows in the embedding, and a tokenizer with tokens of others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kofn.core.checks import DamagedFileError, InputError
from kofn.io.json_text import parsed

_PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one tokenizer: `ids` has the row of each, `added` the settings of those beside the model's own."""

    folder: Path
    ids: Mapping[str, int]
    added: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    own: int = 0  # tokens of the model itself, which come first

    @property
    def end(self) -> int:
        """One more than the last id."""
        return 1 + max(self.ids.values(), default=-1)

    def next_id(self) -> int:
        """The id that a loader gives the next added token.

        Raises:
            InputError: ids with gaps, after which a loader numbers otherwise.
        """
        last = max((int(entry["id"]) for entry in self.added.values()), default=-1)
        following = last + 1 if last >= self.own else self.own
        if following != self.end:
            raise InputError(
                f"{self.folder}: ids of tokens have gaps (the next added token would have id {following}, the last is "
                f"{self.end - 1}); use vocabulary='first' or 'base', which add none"
            )
        return following


def read_tokens(folder: Path) -> Tokens:
    """The tokens of a checkpoint's folder: of tokenizer.json, or of vocab.json or vocab.txt and added_tokens.json.

    Raises:
        InputError: no such file.
        FailureError: one that cannot be read.
    """
    path = folder / "tokenizer.json"
    if path.is_file():
        content = _json(path)
        model = content.get("model")
        vocabulary = model.get("vocab") if isinstance(model, dict) else None
        if isinstance(vocabulary, list):  # pieces with their scores, in the order of their ids
            vocabulary = _pieces(vocabulary)
        entries = content.get("added_tokens") or []
    else:
        vocabulary, entries = _older_files(folder)
        path = folder / "vocab.json"
    if not isinstance(vocabulary, dict) or not isinstance(entries, list):
        raise DamagedFileError(f"{path}: has no readable vocabulary of tokens and ids; fetch it again")
    try:
        own = {str(token): _id(number) for token, number in vocabulary.items()}
        added = {str(entry["content"]): {**entry, "id": _id(entry["id"])} for entry in entries}
    except (KeyError, TypeError, ValueError):
        raise DamagedFileError(f"{path}: a token has no readable id; fetch it again") from None
    ids = {**own, **{token: int(entry["id"]) for token, entry in added.items()}}
    if len(set(ids.values())) < len(ids):
        raise DamagedFileError(f"{path}: two tokens have one id; fetch it again")
    return Tokens(folder, ids, added, len(own))


def _older_files(folder: Path) -> tuple[Any, list[dict[str, Any]]]:
    """The vocabulary and the added tokens of a folder without a tokenizer.json."""
    if (folder / "vocab.json").is_file():
        vocabulary: Any = _json(folder / "vocab.json")
    elif (folder / "vocab.txt").is_file():
        lines = _lines(folder / "vocab.txt")
        vocabulary = {token: number for number, token in enumerate(lines[:-1] if not lines[-1] else lines)}
    else:
        raise InputError(
            f"{folder}: holds no tokenizer.json (nor vocab.json or vocab.txt), so its tokens are not known; save its "
            "fast tokenizer there with save_pretrained"
        )
    path = folder / "added_tokens.json"
    added = _json(path) if path.is_file() else {}
    return vocabulary, [{"id": number, "content": token, **_PLAIN} for token, number in added.items()]


def with_tokens(first: Tokens, others: Sequence[Tokens], *, added_last: bool = False) -> Tokens:
    """The tokens of `first`, then those of the others that are new, in their order, with the next ids.

    With `added_last` those that are a model's own come before those that were added to any, as in mergekit.
    """
    ids, added = dict(first.ids), dict(first.added)
    fresh = [
        (token, tokens.added.get(token, _PLAIN))
        for tokens in others
        for token in sorted(tokens.ids, key=lambda each: tokens.ids[each])
        if token not in first.ids
    ]
    if added_last:
        fresh.sort(key=lambda each: any(each[0] in tokens.added for tokens in others))
    following = first.next_id() if fresh else 0
    for token, settings in fresh:
        if token not in ids:
            ids[token] = following
            added[token] = {
                "id": following,
                "content": token,
                **{key: settings.get(key, _PLAIN[key]) for key in _PLAIN},
            }
            following += 1
    return Tokens(first.folder, ids, added, first.own)


def tokenizer_files(first: Tokens, whole: Tokens) -> dict[str, bytes]:
    """The files of the tokenizer of `first` that change where it gets the further tokens of `whole`."""
    fresh = {token: entry for token, entry in whole.added.items() if token not in first.ids}
    if not fresh:
        return {}
    files = {}
    path = first.folder / "tokenizer.json"
    if path.is_file():
        content = _json(path)
        content["added_tokens"] = [*(content.get("added_tokens") or []), *fresh.values()]
        files[path.name] = _text(content)
    path = first.folder / "tokenizer_config.json"
    if path.is_file():
        content = _json(path)
        if isinstance(content.get("added_tokens_decoder"), dict):
            listed = {str(entry["id"]): {key: entry[key] for key in ("content", *_PLAIN)} for entry in fresh.values()}
            content["added_tokens_decoder"] = {**content["added_tokens_decoder"], **listed}
            files[path.name] = _text(content)
    path = first.folder / "added_tokens.json"
    if path.is_file() or "tokenizer.json" not in files:
        listed = _json(path) if path.is_file() else {}
        files[path.name] = _text({**listed, **{token: entry["id"] for token, entry in fresh.items()}})
    return files


def _pieces(vocabulary: Sequence[Any]) -> dict[str, int] | None:
    """The ids of pieces with their scores, None if one has no text."""
    if not all(isinstance(piece, list) and piece and isinstance(piece[0], str) for piece in vocabulary):
        return None
    return {piece[0]: number for number, piece in enumerate(vocabulary)}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedFileError(f"{path}: cannot be read as text ({error}); fetch it again") from None


def _id(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise ValueError
    return number


def _json(path: Path) -> dict[str, Any]:
    try:
        content = parsed(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DamagedFileError(f"{path}: not readable JSON ({error}); fetch it again") from None
    if not isinstance(content, dict):
        raise DamagedFileError(f"{path}: not a JSON object; fetch it again")
    return content


def _text(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
