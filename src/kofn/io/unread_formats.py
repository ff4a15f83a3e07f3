"""Forms of quantised weights that are not read: told by the names of their tensors, or by the configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kofn.core.checks import FailureError
from kofn.io.companions import CONFIG, QUANTISATION, read_config
from kofn.io.quantised import NARROW, Stored, scale_of

_CODES = ("int8", "uint8", "int16", "int32")
# Formats whose weights are read by their own library only, by the end of a name that they have.
_UNREAD = (
    (re.compile(r"(^|\.)(qweight|qzeros)$"), "GPTQ or AWQ: packed integers with scales and zeros"),
    (re.compile(r"(\.|_)(absmax|quant_map)$|\.quant_state\."), "bitsandbytes 4 bit: packed codes"),
    (re.compile(r"weight_packed$"), "compressed-tensors of packed integers"),
    (re.compile(r"weight_(global_scale|scale_2)$"), "NVFP4: packed codes with two scales"),
    (re.compile(r"weight_zero_point$"), "integers about a zero point"),
    (re.compile(r"_blocks$"), "MXFP4: packed codes in blocks"),
    (
        re.compile(r"(^|\.)biases$"),
        "MLX: packed codes with scales and biases (mlx_lm.convert --dequantize unpacks them)",
    ),
)


def unread_format(names: Sequence[str]) -> tuple[str, str] | None:
    """The first name that belongs to a format that is not read, and the format's name; None if there is none."""
    known = set(names)
    for pattern, kind in _UNREAD:
        for name in names:
            # Names that others have too count beside scales only.
            stem = name.removesuffix("blocks").removesuffix("biases")
            if pattern.search(name) and (stem == name or stem + "scales" in known):
                return name, kind
    return None


def unread_codes(tensors: Mapping[str, Stored], folder: Path | None) -> tuple[str, str] | None:
    """The first tensor of codes, and the format's name, where config.json names one and no weight has a scale.

    Many libraries have names of their own for codes and scales (HQQ, EETQ, AQLM, quanto, BitNet, ...); that weights are
    codes is known by the configuration.
    """
    try:
        config = read_config(folder / CONFIG) if folder is not None else {}
    except (OSError, FailureError):
        return None
    settings: Any = next((config[key] for key in QUANTISATION if isinstance(config.get(key), dict)), {})
    method = settings.get("quant_method")
    if not isinstance(method, str) or any(
        tensor.dtype in NARROW and scale_of(tensors, n) for n, tensor in tensors.items()
    ):
        return None
    codes = (name for name, tensor in tensors.items() if tensor.dtype.name in _CODES and len(tensor.shape) > 1)
    name = next(codes, None)
    return None if name is None else (name, f"{tensors[name].dtype}, by {method} as config.json says")
