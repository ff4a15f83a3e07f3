"""Quantised weights in forms that are not read, where models are blended and where adapters are folded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kofn.combination import fold_adapter, weighted_mean
from kofn.core.checks import InputError
from kofn.io.tensor_writer import write_arrays


def stored(folder: Path, arrays: dict[str, NDArray[Any]], config: dict[str, Any]) -> Path:
    folder.mkdir()
    write_arrays(folder / "model.safetensors", arrays)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("method", "name", "dtype"),
    [
        ("hqq", "fc.W_q", np.uint8),
        ("quanto", "fc.codes", np.int8),
        ("bitsandbytes", "fc.weight", np.uint8),
        ("aqlm", "fc.codes", np.int16),
        ("bitnet", "fc.weight", np.int32),
        ("bitnet", "scaled.weight", np.uint8),
    ],
)
def test_codes_that_only_the_configuration_tells_of(method: str, name: str, dtype: Any, tmp_path: Path) -> None:
    tensors = {
        name: np.ones((2, 3), dtype),
        "scaled.weight_scale": np.ones(1, np.float32),
        "ids": np.ones((1, 4), np.int64),
    }
    config = {"quantization_config": {"quant_method": method}}
    member = stored(tmp_path / "a", tensors, config)
    says = rf"quantised in a form that is not read \('{name}': {np.dtype(dtype)}, by {method} as config.json says\)"
    with pytest.raises(InputError, match=rf"member 0 \(.*\) is {says}"):
        weighted_mean([member, member])
    update = {"fc.lora_A.weight": np.ones((1, 3)), "fc.lora_B.weight": np.ones((2, 1))}
    for dtype_word in (None, "float32"):
        with pytest.raises(InputError, match=f"base is {says}"):
            fold_adapter(member, update, dtype=dtype_word)
    plain = stored(tmp_path / "plain", {"fc.weight": np.ones((2, 3), np.float32), "ids": tensors["ids"]}, config)
    assert fold_adapter(plain, update)["fc.weight"].tolist() == [[2.0] * 3] * 2  # written dequantised


def test_no_update_is_added_to_codes_in_another_dtype() -> None:
    update = {"fc.lora_A.weight": np.ones((1, 3)), "fc.lora_B.weight": np.ones((2, 1))}
    for dtype in (None, "float32"):
        with pytest.raises(InputError, match=r"'fc.weight' holds int8, to which no update can be added"):
            fold_adapter({"fc.weight": np.ones((2, 3), np.int8)}, update, dtype=dtype)
