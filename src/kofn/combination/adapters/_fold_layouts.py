"""Layers that one layout keeps otherwise than another: transposed, or in several tensors and not in one.

transformers has transposed layers (`Conv1D`, of GPT-2 and its kin), which PEFT's `fan_in_fan_out` is about. It keeps
the experts of a layer in one parameter (experts, height, width) in memory and, of many models, in files as a layer
each; diffusers splits what the files of Flux's authors join, and adapters are of either.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kofn.combination.adapters._fold_rows import Change, LowRank
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.io.adapter_families import module_names
from kofn.io.companions import first_config
from kofn.io.low_rank import Pair
from kofn.io.module_names import ModuleNames, split
from kofn.io.tensors import Checkpoint

Stem = Callable[[str], str | None]
# Parameters of experts, and the layers of one expert that they are in files, one above the other.
_LAYERS = {"gate_up_proj": (("gate_proj", "w1"), ("up_proj", "w3")), "down_proj": (("down_proj", "w2"),)}
# Models whose parameters of experts are (experts, in, out), and not (experts, out, in).
_TRANSPOSED = ("gpt_oss", "aria", "aria_text", "openai_privacy_filter")

# Layers of Flux's authors, and those that diffusers has for them, in the order of their rows.
_FLUX = (
    (r"double_blocks_(\d+)_img_attn_qkv", r"transformer_blocks_\1_attn_{}", ("to_q", "to_k", "to_v")),
    (r"double_blocks_(\d+)_txt_attn_qkv", r"transformer_blocks_\1_attn_{}", ("add_q_proj", "add_k_proj", "add_v_proj")),
    (r"double_blocks_(\d+)_img_attn_proj", r"transformer_blocks_\1_attn_{}", ("to_out_0",)),
    (r"double_blocks_(\d+)_txt_attn_proj", r"transformer_blocks_\1_attn_{}", ("to_add_out",)),
    (r"double_blocks_(\d+)_img_mlp_0", r"transformer_blocks_\1_ff_net_{}", ("0_proj",)),
    (r"double_blocks_(\d+)_img_mlp_2", r"transformer_blocks_\1_ff_net_{}", ("2",)),
    (r"double_blocks_(\d+)_txt_mlp_0", r"transformer_blocks_\1_ff_context_net_{}", ("0_proj",)),
    (r"double_blocks_(\d+)_txt_mlp_2", r"transformer_blocks_\1_ff_context_net_{}", ("2",)),
    (r"double_blocks_(\d+)_img_mod_lin", r"transformer_blocks_\1_{}", ("norm1_linear",)),
    (r"double_blocks_(\d+)_txt_mod_lin", r"transformer_blocks_\1_{}", ("norm1_context_linear",)),
    (
        r"single_blocks_(\d+)_linear1",
        r"single_transformer_blocks_\1_{}",
        ("attn_to_q", "attn_to_k", "attn_to_v", "proj_mlp"),
    ),
    (r"single_blocks_(\d+)_linear2", r"single_transformer_blocks_\1_{}", ("proj_out",)),
    (r"single_blocks_(\d+)_modulation_lin", r"single_transformer_blocks_\1_{}", ("norm_linear",)),
)
# Models of transformers with layers (in, out), Conv1D, and how these are called; their other layers are (out, in).
_CONV1D = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp", "clvp_decoder"})
_CONV1D_LAYER = re.compile(r"(?:^|\.)(?P<layer>c_attn|q_attn|c_fc|c_proj)\.weight")
_WIDENING = ("c_attn", "c_fc")  # that have more outputs than inputs
_LDM = re.compile(r"(input|middle|output)_blocks?[._]\d")
_TORCHTUNE = re.compile(r"layers\.\d+\.(attn\.(([qkv]|output)_proj)|mlp\.w[123])\.")
_UNET = re.compile(r"(down|up)_blocks[._]\d|mid_block[._]")


class Transposed:
    """Which layers of a base are (in, out) and not (out, in), as far as their shapes leave it open.

    PEFT's `fan_in_fan_out` is one setting for layers of both kinds, and PEFT itself goes by the kind of each layer. Of
    a square layer the shape does not tell; the architecture does, or the other layers that the adapter targets.
    """

    def __init__(self, base: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        self._types = set(_model_types(config))
        shapes = [(match["layer"], tuple(base[name].shape)) for name in base if (match := _CONV1D_LAYER.search(name))]
        wide = [shape[0] < shape[1] for layer, shape in shapes if layer in _WIDENING and len(set(shape)) == 2]
        self._widening = wide[0] if wide and len(set(wide)) == 1 else None

    def known(self, name: str) -> bool | None:
        """Whether a layer is (in, out) by the architecture; None where that is not known."""
        if _CONV1D_LAYER.search(name):
            return True if self._widening is None and self._types & _CONV1D else self._widening
        return False if self._types & _CONV1D else None

    def decide(self, name: str, setting: bool, others: Sequence[bool], label: str) -> bool:
        """Whether the square layer `name` is (in, out).

        Args:
            name: its weight's name in the base.
            setting: the adapter's `fan_in_fan_out`.
            others: whether each layer of the adapter that is not square is (in, out).
            label: the adapter's, in errors.

        Raises:
            InputError: a setting that the other layers, or the architecture, contradict.
        """
        known = self.known(name)
        if known is not None:
            return known
        if others and setting not in others:
            raise InputError(
                f"{label}: {name!r} is square and fan_in_fan_out is {str(setting).lower()}, by which no layer of the "
                f"adapter that is not square fits the base: set it to {str(not setting).lower()} in "
                "adapter_config.json, or leave the square ones out with skip"
            )
        if setting and not others and self._types:
            raise InputError(
                f"{label}: {name!r} is square and fan_in_fan_out is true, which is of layers (in, out), of "
                f"which the model_type {sorted(self._types)[0]!r} of config.json has none that are known: set it to "
                "false in adapter_config.json where they are torch.nn.Linear, or merge that adapter with PEFT"
            )
        return setting


def _model_types(config: Mapping[str, Any]) -> Iterator[str]:
    """The model_type of a configuration, and those of its parts."""
    for key, value in config.items():
        if key == "model_type" and isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            yield from _model_types(value)


def fused_changes(
    base: Mapping[str, Any], names: ModuleNames, module: str, pair: Pair, weight: float
) -> dict[str, Change]:
    """The changes by a module of Flux where the base joins it with others, or splits it; none where it does not."""
    if pair.kind != "linear" or pair.bias is not None or pair.magnitude is not None:
        return {}
    flat = split(module)[1].replace(".", "_")
    for joint, form, parts in _FLUX:
        if match := re.fullmatch(joint, flat):
            stems = [names.find("lora_unet_" + match.expand(form.format(part))) for part in parts]
            return _split(base, [name for name in stems if name is not None], len(parts), pair, weight)
        for i, part in enumerate(parts):
            if match := re.fullmatch(form.replace(r"\1", r"(\d+)").format(part), flat):
                name = names.find("lora_unet_" + joint.replace(r"(\d+)", match[1]))
                return {} if name is None else _joined(base, f"{name}.weight", i, len(parts), pair, weight)
    return {}


def _split(base: Mapping[str, Any], stems: Sequence[str], parts: int, pair: Pair, weight: float) -> dict[str, Change]:
    """Rows of the update go to one tensor after the other."""
    weights = [f"{name}.weight" for name in stems if f"{name}.weight" in base]
    heights = [base[name].shape[0] for name in weights]
    if len(weights) < parts or sum(heights) != pair.out or any(base[name].shape[1:] != pair.into for name in weights):
        return {}
    ends = [0, *itertools.accumulate(heights)]
    return {
        name: LowRank(_rows_of(pair, weight, slice(low, high)))
        for name, low, high in zip(weights, ends, ends[1:], strict=False)
    }


def _joined(base: Mapping[str, Any], name: str, index: int, parts: int, pair: Pair, weight: float) -> dict[str, Change]:
    """The update goes to some rows of a tensor: to a third; where four are one, of which the last is an MLP, the others
    have as many rows as columns."""
    shape = tuple(base[name].shape) if name in base else ()
    if len(shape) != 2 or shape[1:] != pair.into:
        return {}
    height = shape[0] // parts if parts < 4 else shape[1] if index < 3 else shape[0] - 3 * shape[1]
    if pair.out != height or (parts < 4 and shape[0] % parts):
        return {}
    last = index == parts - 1
    first = shape[0] - pair.out if last else index * pair.out
    return {name: LowRank(_rows_of(pair, weight), span=(first, first + pair.out))}


def _rows_of(pair: Pair, weight: float, rows: slice = slice(None)) -> Callable[[], tuple[Floats, Floats]]:
    def factors() -> tuple[Floats, Floats]:
        left = weight * pair.scale * pair.columns()[rows].astype(np.float64)
        return left, pair.rows().astype(np.float64)

    return factors


def expert_changes(
    base: Mapping[str, Any], stem: Stem, pairs: Mapping[str, Pair], config: Mapping[str, Any], weight: float
) -> tuple[dict[str, list[Change]], list[str]]:
    """The changes by factors of several experts in one (PEFT's `target_parameters`), and what does not fit.

    Which parameter a pair is of, its name does not say, so the shapes of those that the configuration lists decide.

    Args:
        base: the tensors by name.
        stem: the base's name of a module.
        pairs: module -> factors.
        config: the adapter's configuration.
        weight: factor of the update.

    Raises:
        InputError: pairs whose parameters, or the order of whose axes, cannot be told.
    """
    out: dict[str, list[Change]] = {}
    faults = []
    leaves = sorted({name.rpartition(".")[2] for name in module_names(config, "target_parameters")})
    groups: dict[str, list[Pair]] = {}
    for module, pair in pairs.items():
        groups.setdefault(re.sub(r"(\.base_layer)+$", "", module), []).append(pair)
    for module, group in groups.items():
        parameters = [_parameter(base, stem, module, leaf) for leaf in leaves]
        known = [parameter for parameter in parameters if parameter is not None]
        fits = [[parameter for parameter in known if parameter.fits(pair)] for pair in group]
        for pair, fitting in zip(group, fits, strict=True):
            if not fitting:
                shapes = ", ".join(parameter.described for parameter in known) or "no such parameter"
                faults.append(
                    f"{module!r} has {pair.experts} experts of {(pair.out, *pair.into)} in the adapter, and {shapes}"
                )
        if not all(fits):
            continue
        chosen = _one_each(fits)
        if chosen is None:
            raise InputError(
                f"target_parameters: the factors of {module!r} fit {', '.join(each.described for each in known)} in "
                "more than one way; merge that adapter with PEFT first"
            )
        turned = _turned(base, module, group, chosen)
        for pair, parameter in zip(group, chosen, strict=True):
            for name, change in parameter.changes(pair, weight, turned):
                out.setdefault(name, []).append(change)
    return out, faults


class _Parameter:
    """Where a parameter of experts lies in the base: in one tensor, or in one (or several) for each expert."""

    def __init__(self, base: Mapping[str, Any], whole: str | None, layers: Sequence[Sequence[str]]) -> None:
        self.whole, self.layers = whole, layers
        if whole is not None:
            self.count, *sides = base[whole].shape
            self.sides = tuple(sides)
            self.heights: tuple[int, ...] = ()
        else:
            self.count = len(layers)
            self.heights = tuple(base[name].shape[0] for name in layers[0])
            self.sides = (sum(self.heights), base[layers[0][0]].shape[1])
        self.described = f"{whole or layers[0][0]!r} {tuple(self.sides)}"

    def fits(self, pair: Pair) -> bool:
        """Whether the factors have the shape of this parameter; only a single tensor may be transposed."""
        own = (pair.out, *pair.into)
        return pair.experts == self.count and (
            own == self.sides or (self.whole is not None and own[::-1] == self.sides)
        )

    def changes(self, pair: Pair, weight: float, turned: bool) -> Iterator[tuple[str, LowRank]]:
        """The change of each expert."""
        for expert in range(pair.experts):
            if self.whole is not None:
                height = self.sides[0]
                span = (expert * height, (expert + 1) * height)
                yield self.whole, LowRank(_expert(pair, weight, expert, turned), span=span)
                continue
            ends = [0, *itertools.accumulate(self.heights)]
            for name, low, high in zip(self.layers[expert], ends, ends[1:], strict=False):
                yield name, LowRank(_expert(pair, weight, expert, False, slice(low, high)))


def _expert(
    pair: Pair, weight: float, expert: int, turned: bool, rows: slice = slice(None)
) -> Callable[[], tuple[Floats, Floats]]:
    """The factors of one expert: A is (experts, r, in), B (out, r, experts)."""

    def factors() -> tuple[Floats, Floats]:
        right = pair.A.reshape(pair.experts, -1, *pair.into)[expert].astype(np.float64)
        left = weight * pair.scale * pair.B.reshape(pair.out, -1, pair.experts)[rows, :, expert].astype(np.float64)
        return (right.T, left.T) if turned else (left, right)

    return factors


def _parameter(base: Mapping[str, Any], stem: Stem, module: str, leaf: str) -> _Parameter | None:
    """Where a parameter of a module of experts lies in the base, None if nowhere."""
    known = stem(module)
    if known is not None and f"{known}.{leaf}" in base and len(base[f"{known}.{leaf}"].shape) == 3:
        return _Parameter(base, f"{known}.{leaf}", ())
    layers = []
    for expert in itertools.count():
        own = [_layer(base, stem, f"{module}.{expert}", words) for words in _LAYERS.get(leaf, ())]
        if not own or None in own:
            break
        layers.append([layer for layer in own if layer is not None])
    return _Parameter(base, None, layers) if layers else None


def _layer(base: Mapping[str, Any], stem: Stem, module: str, words: Sequence[str]) -> str | None:
    """The weight of one expert's layer, under one of its names."""
    for word in words:
        known = stem(f"{module}.{word}")
        if known is not None and f"{known}.weight" in base and len(base[f"{known}.weight"].shape) == 2:
            return f"{known}.weight"
    return None


def _one_each(fits: Sequence[Sequence[_Parameter]]) -> list[_Parameter] | None:
    """A parameter of its own for each pair, None where there are several ways, or none."""
    ways = [way for way in itertools.product(*fits) if len(set(map(id, way))) == len(way)]
    return list(ways[0]) if len(ways) == 1 else None


def _turned(base: Mapping[str, Any], module: str, group: Sequence[Pair], parameters: Sequence[_Parameter]) -> bool:
    """Whether parameters of this module are (experts, in, out): by one that is not square, or by the model's type."""
    whole = [
        (pair, parameter) for pair, parameter in zip(group, parameters, strict=True) if parameter.whole is not None
    ]
    for pair, parameter in whole:
        if parameter.sides[0] != parameter.sides[1]:
            return parameter.sides == (*pair.into, pair.out)
    kind = first_config([base.path]).get("model_type") if isinstance(base, Checkpoint) else None
    if whole and kind is None:
        raise InputError(
            f"target_parameters: {whole[0][1].described} of {module!r} is square, and no config.json says whether its "
            "rows are inputs; merge that adapter with PEFT first"
        )
    return kind in _TRANSPOSED


def other_names(base: Mapping[str, Any], lacking: Sequence[str]) -> str | None:
    """What to do where the adapter's names are those of another form of the base; None where they are not."""
    if any(map(_LDM.search, base)) and any(map(_UNET.search, lacking)):
        return (
            "the base is a single file of Stable Diffusion, whose layers have other names and the adapter diffusers': "
            "convert it (StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER), of SDXL "
            "StableDiffusionXLPipeline) and fold into FOLDER/unet, or leave text encoders out with skip"
        )
    if any(map(_UNET.search, base)) and any(map(_LDM.search, lacking)):
        return (
            "the adapter has the names of a single file of Stable Diffusion, the base diffusers': fold into the single "
            "file that it was trained on"
        )
    if any(map(_TORCHTUNE.search, lacking)) and any(".self_attn." in name for name in base):
        return (
            "the adapter has torchtune's names and the base those of transformers, where rows of queries and keys are "
            "in another order: give the adapter_model.safetensors that torchtune saves beside, in PEFT's form"
        )
    joint, apart = re.compile(r"[._]?qkv(_proj)?[._]|in_proj_"), re.compile(r"(^|[._])(to_q|q_proj|query)[._]")
    for ours, theirs, form in ((joint, apart, "apart"), (apart, joint, "in one")):
        if any(map(ours.search, lacking)) and any(map(theirs.search, base)) and not any(map(ours.search, base)):
            return (
                f"the base keeps queries, keys and values {form}, the adapter does not: fold into the form of the "
                "model that it was trained on, or load it with its own trainer and merge it there"
            )
    return None
