"""The chat template and the end of a text that adapters were trained with, where these are not the base's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from kofn.io.adapters import Adapter
from kofn.io.companions import read_chat_template, read_eos_token, with_chat_template

Files = Mapping[str, Path | bytes]


def with_templates_of(
    files: Files, base: Path, adapters: Sequence[Adapter], weights: Sequence[float]
) -> tuple[Files, list[str]]:
    """The files beside the result with the chat template that its adapters were trained with, and warnings.

    Args:
        files: those copied from the base.
        base: its folder.
        adapters: m adapters; those without a folder, or with a weight of 0 or less, have no say.
        weights: (m,) their weights.
    """
    heard = [
        (adapter, adapter.path)
        for adapter, weight in zip(adapters, weights, strict=True)
        if weight > 0 and adapter.path is not None and adapter.path.is_dir()
    ]
    notes: list[str] = []
    templates = [(each, template) for each, path in heard if (template := read_chat_template(path)) is not None]
    own = read_chat_template(base)
    if len({template for _, template in templates}) > 1:
        kept = "the base's is kept" if own is not None else "none is written"
        labels = ", ".join(each.label for each, _ in templates)
        notes.append(f"{labels} were trained with unlike chat templates, and {kept}: copy the one that is meant")
    elif templates and templates[0][1] != own:
        adapter, template = templates[0]
        files = with_chat_template(files, template)
        there = "differs from the base's" if own is not None else "the base has not"
        notes.append(f"chat_template.jinja is of {adapter.label}, which was trained with it, and {there}")
    end = read_eos_token(base)
    for adapter, path in heard:
        other = read_eos_token(path)
        if other is not None and other != end:
            notes.append(
                f"{adapter.label} ends its texts with {other!r} (eos_token), the base, whose tokenizer is copied, "
                f"{'names no end' if end is None else f'with {end!r}'}: set eos_token, and eos_token_id of "
                "generation_config.json, to the adapter's where it was trained to stop there"
            )
    return files, notes
