"""`tokenizer_source` and `chat_template` of mergekit recipes: whose tokens the output has, and its template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kofn.combination._sweep.token_rows import TokenRow
from kofn.combination._sweep.tokens_of import TokensOf
from kofn.combination.recipes._mergekit_settings import flag
from kofn.combination.recipes._recipe import Recipe, Relayered, folder_of, refuse_unknown
from kofn.core import checks
from kofn.core.checks import InputError
from kofn.io.chat_templates import NAMED
from kofn.io.companions import read_chat_template
from kofn.io.vocabulary import read_tokens

_SHORTEST = 20  # letters of a template: what is shorter is a name
_VOCABULARY = "give --vocabulary union (in Python vocabulary='union')"


def read_tokens_of(
    content: Mapping[str, Any], base: Any, first: Any, locate: Callable[[str], Any], model: Callable[[Any, str], str]
) -> TokensOf | None:
    """The tokens that a recipe asks for, None where it does not.

    Args:
        content: the recipe.
        base: the path of its base, None without one.
        first: the path of its first model.
        locate: finds a model by its name in the recipe.
        model: reads a model's name from an entry.

    Raises:
        InputError: settings that are none.
    """
    decisions: tuple[TokenRow, ...] = ()
    source, multiple = content.get("tokenizer_source"), 1
    long = content.get("tokenizer")
    if long not in (None, "auto"):
        if source is not None:
            raise InputError("tokenizer_source and tokenizer are both given; leave one of them out")
        if not isinstance(long, Mapping):
            raise InputError(f"tokenizer: {long!r} is no table; write tokenizer: {{source: union}}")
        refuse_unknown(long, ("source", "tokens", "pad_to_multiple_of"), "tokenizer")
        source = long.get("source", "union")
        decisions = _decisions(long.get("tokens"), locate, model)
        if long.get("pad_to_multiple_of") is not None:
            multiple = checks.count(long["pad_to_multiple_of"], "tokenizer: pad_to_multiple_of")
    if source is None:
        return None
    start = Path(first if base is None else base)
    if source in ("union", "base"):
        return TokensOf(source == "union", start, None if base is None else Path(base), decisions, multiple)
    folder = Path(locate(model(source, "tokenizer_source")))
    return TokensOf(False, folder, None if base is None else Path(base), decisions, multiple)


def _decisions(content: Any, locate: Callable[[str], Any], model: Callable[[Any, str], str]) -> tuple[TokenRow, ...]:
    """Tokens whose rows a recipe decides."""
    if content is None:
        return ()
    if not isinstance(content, Mapping):
        raise InputError(
            f"tokenizer: tokens: {checks.shown(content)} is no table of tokens and where their rows are from"
        )
    out = []
    for token, entry in content.items():
        owner = f"tokenizer: tokens: {token!r}"
        if not isinstance(token, str) or not isinstance(entry, Mapping) or entry.get("source") is None:
            raise InputError(
                f"{owner}: {checks.shown(entry)} names no source; give the token, as text, a table with one"
            )
        refuse_unknown(entry, ("source", "force"), owner)
        source, force = entry["source"], flag(entry.get("force", False), f"{owner}: force")
        if not (isinstance(source, Mapping) and "kind" in source):
            out.append(TokenRow(token, Path(locate(model(source, owner))), token, force))
            continue
        kind = checks.choice(source["kind"], f"{owner}: kind", ("zero", "model_token"))
        refuse_unknown(source, ("kind",) if kind == "zero" else ("kind", "model", "token", "token_id"), owner)
        if kind == "zero":
            out.append(TokenRow(token, None, token, force))
            continue
        named = [source[key] for key in ("token", "token_id") if source.get(key) is not None]
        if len(named) != 1 or not isinstance(named[0], str if source.get("token") is not None else int):
            raise InputError(f"{owner}: give either token, a text, or token_id, a number")
        out.append(TokenRow(token, Path(locate(model(source.get("model"), owner))), named[0], force))
    return tuple(out)


def chat_template_of(asked: Any, folders: Sequence[Any]) -> str | None:
    """The chat template that a recipe asks for: a text, one by its name, or with "auto" that of most of its models.

    Raises:
        InputError: what is no template.
    """
    if asked in (None, ""):
        return None
    if asked == "auto":
        known = [text for folder in folders if (text := read_chat_template(Path(folder)))]
        return Counter(known).most_common(1)[0][0] if known else None
    if isinstance(asked, str) and asked in NAMED:
        return NAMED[asked]
    if not isinstance(asked, str) or len(asked) < _SHORTEST or "{" not in asked:
        raise InputError(
            f"chat_template: {checks.shown(asked)} is no template; write its text after `chat_template: |`, the "
            f"name of one ({', '.join(NAMED)}), or auto for that of most models"
        )
    return asked


def tokens_asked(recipe: Recipe, vocabulary: str | None) -> TokensOf | str | None:
    """What decides the tokens of the output: the recipe, or the argument `vocabulary`.

    Raises:
        InputError: both are given; or layers of models of other tokens are stacked.
    """
    tokens = recipe.tokens
    if tokens is None:
        return vocabulary
    if vocabulary is not None:
        raise InputError(
            f"the recipe says {tokens.word}, and vocabulary={vocabulary!r} is given; leave one of them out"
        )
    stacked = [member for member in (*recipe.members, recipe.base) if isinstance(member, Relayered)]
    _refuse_other_tokens([path for member in stacked for path in member.paths], tokens)
    return tokens


def _refuse_other_tokens(paths: Sequence[Any], tokens: TokensOf) -> None:
    """Refuse a stack of layers whose models number tokens in other ways: its embedding and head are of two models."""
    known: dict[str, Mapping[str, int]] = {}
    for path in dict.fromkeys(paths):
        folder = Path(folder_of(path))
        try:
            known[str(path)] = read_tokens(folder if folder.is_dir() else folder.parent).ids
        except InputError:
            continue
    first = next(iter(known.items()), None)
    for path, ids in known.items():
        if first is not None and dict(ids) != dict(first[1]):
            raise InputError(
                f"{tokens.word}: {path} has other tokens than {first[0]}, and layers of both are stacked; take "
                f"tokenizer_source out, give each model one vocabulary first (kofn combine {first[0]} {path} --weights "
                "1,0 --vocabulary union -o ...), and stack those"
            )
