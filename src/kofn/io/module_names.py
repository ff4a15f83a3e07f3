"""Modules by the names that trainers give them: with a prefix for the part of the model, or dots made underscores."""

from __future__ import annotations

import re
from collections.abc import Iterable

from kofn.core.checks import InputError

PREFIX = "base_model.model."  # PEFT's, before the module's own name
# The part of a model that a prefix stands for; kohya's names have underscores in place of all dots.
_PARTS = (
    ("denoiser", re.compile(r"(model\.diffusion_model|diffusion_model|unet|transformer|prior)\.|lora_unet_")),
    (
        "text encoder",
        re.compile(r"(text_encoder|cond_stage_model\.transformer|conditioner\.embedders\.0\.transformer)\.|lora_te1?_"),
    ),
    ("second text encoder", re.compile(r"text_encoder_2\.|lora_te2_")),
    ("third text encoder", re.compile(r"text_encoder_3\.|lora_te3_")),
    ("model", re.compile(re.escape(PREFIX) + r"|lycoris_")),
)


# Releases of transformers have moved the language model of models of images and text and the towers beside it, and
# have renamed layers; files keep the old names.
_TOWERS = re.compile(r"(model\.|language_model\.)+")
_RENAMED = (
    ("block_sparse_moe.", "mlp."),
    ("encoder.layer.", "layers."),
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
    ("embed_out", "lm_head"),
)


def split(module: str) -> tuple[str, str]:
    """The part of the model ("model" where the name does not say), and the module's name in it.

    >>> split("lora_te_text_model_encoder_layers_0_mlp_fc1")
    ('text encoder', 'text_model_encoder_layers_0_mlp_fc1')
    >>> split("base_model.model.unet.conv_in"), split("layers.0.q_proj")
    (('denoiser', 'conv_in'), ('model', 'layers.0.q_proj'))
    """
    module = module.removeprefix(PREFIX)
    for part, prefix in _PARTS:
        if match := prefix.match(module):
            return part, module[match.end() :]
    return "model", module


# What torch puts around modules: torch.compile, FSDP, activation checkpoints; and DataParallel around the whole.
_TORCH = re.compile(
    r"(?:^|(?<=\.))_(?:orig_mod|fsdp_wrapped_module|checkpoint_wrapped_module)\.|^module\.(?=base_model\.)"
)


def without_torch_wrappers(name: str) -> str:
    """The name without what torch wraps around modules, which some trainers save with it.

    >>> without_torch_wrappers("_orig_mod.base_model.model.layers.0._checkpoint_wrapped_module.q.lora_A.weight")
    'base_model.model.layers.0.q.lora_A.weight'
    """
    return _TORCH.sub("", name)


def unwrapped(name: str) -> str:
    """The name that a saved tensor has in the base model: without what PEFT wraps around the modules it targets."""
    return name.removeprefix(PREFIX).replace(".base_layer.", ".")


class ModuleNames:
    """Names of modules, found by the names that other trainers give the same modules.

    Names correspond if they are equal without their prefixes, dots made underscores, and belong to the same part of the
    model; a name that says no part is of any. Where none does, they correspond if they differ in where the language
    model lies: `model.language_model.layers.0`, `language_model.model.layers.0` and `model.layers.0` are one module. So
    are layers that releases of transformers name otherwise, such as ViT's `attention.attention.query` and `q_proj`.

    >>> ModuleNames(["down.0.to_q", "down.0.to_k"]).find("lora_unet_down_0_to_q")
    'down.0.to_q'
    >>> ModuleNames(["language_model.model.layers.0.q"]).find("model.language_model.layers.0.q")
    'language_model.model.layers.0.q'
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._known = dict.fromkeys(names)
        self._flat: dict[str, list[tuple[str, str]]] = {}
        self._inner: dict[str, list[str]] = {}
        for name in self._known:
            part, rest = split(name)
            self._flat.setdefault(rest.replace(".", "_"), []).append((part, name))
            self._inner.setdefault(_inner(name), []).append(name)

    def find(self, module: str) -> str | None:
        """The name of this module here, None if there is none.

        Raises:
            InputError: two names correspond.
        """
        if module in self._known:
            return module
        part, rest = split(module)
        near = [
            name
            for other, name in self._flat.get(rest.replace(".", "_"), ())
            if other == part or "model" in (other, part)
        ]
        near = near or self._inner.get(_inner(module), [])
        if len(near) > 1:
            raise InputError(
                f"module {module!r} may be {near[0]!r} or {near[1]!r}; name the modules of one of them otherwise"
            )
        return near[0] if near else None

    def wrapper(self, modules: Iterable[str]) -> tuple[str, str] | None:
        """The prefix to take from, and the one to put before, all of these modules so that each has a name here.

        One model is saved with a prefix and without it: as the body of a larger one (`bert.encoder`), and alone
        (`encoder`). None where no prefix of one word does it.

        >>> ModuleNames(["encoder.0.q", "pooler"]).wrapper(["bert.encoder.0.q"])
        ('bert.', '')
        """
        inner = [module.removeprefix(PREFIX) for module in modules]
        first = {name.partition(".")[0] for name in inner}
        if len(first) == 1 and all("." in name for name in inner):
            prefix = f"{first.pop()}."
            if all(name.removeprefix(prefix) in self._known for name in inner):
                return prefix, ""
        for prefix in dict.fromkeys(name.partition(".")[0] + "." for name in self._known if "." in name):
            if inner and all(prefix + name in self._known for name in inner):
                return "", prefix
        return None


def _inner(module: str) -> str:
    """The module's newest name in the part of the model that it lies in, wherever that part lies."""
    module = module.removeprefix(PREFIX)
    match = _TOWERS.match(module)
    module = module[match.end() :] if match else module
    for old, new in _RENAMED:
        module = module.replace(old, new)
    return module
