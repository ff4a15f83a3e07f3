"""PEFT's own LoHa and LoKr are read with PEFT's scales; other types are refused with what to do instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from kofn.combination import fold_adapter, stack_adapters
from kofn.core.checks import InputError
from kofn.io.adapters import Adapter

P = "base_model.model."
RNG = np.random.default_rng(0)


def drawn(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {f"{P}fc.{part}": RNG.normal(size=shape).astype(np.float32) for part, shape in shapes.items()}


LOHA = drawn(hada_w1_a=(6, 2), hada_w1_b=(2, 4), hada_w2_a=(6, 2), hada_w2_b=(2, 4))
LOKR = drawn(lokr_w1=(2, 2), lokr_w2_a=(3, 2), lokr_w2_b=(2, 2))
WHOLE = drawn(lokr_w1=(2, 2), lokr_w2=(3, 2))


def loha() -> np.ndarray:
    a, b, c, d = LOHA.values()
    return (a @ b) * (c @ d)


def lokr() -> np.ndarray:
    whole, a, b = LOKR.values()
    return np.kron(whole, a @ b)


CASES = {
    "LoHa": ("LOHA", LOHA, {"r": 2, "alpha": 5}, 2.5 * loha()),
    "LoHa by patterns": (
        "LOHA",
        LOHA,
        {"r": 8, "alpha": 5, "rank_pattern": {"fc": 2}, "alpha_pattern": {"fc": 9}},
        4.5 * loha(),
    ),
    "LoKr": ("LOKR", LOKR, {"r": 2, "alpha": 5}, 2.5 * lokr()),
    # LyCORIS would not scale it.
    "LoKr of whole factors": ("LOKR", WHOLE, {"r": 8, "alpha": 4}, 0.5 * np.kron(*WHOLE.values())),
}


@pytest.mark.parametrize(("kind", "tensors", "config", "update"), CASES.values(), ids=CASES)
def test_products_have_the_scale_of_the_configuration(
    kind: str, tensors: dict[str, Any], config: dict[str, Any], update: np.ndarray, tmp_path: Path
) -> None:
    head = {f"{P}head.weight": np.ones((3, 6), np.float32)}
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": kind, **config}))
    safetensors.numpy.save_file({**tensors, **head}, tmp_path / "adapter_model.safetensors")
    adapter = Adapter.read(tmp_path)
    np.testing.assert_allclose(adapter.pairs[f"{P}fc"].delta(), update, rtol=1e-5, atol=1e-6)
    base = {"fc.weight": np.ones((6, 4), np.float32), "head.weight": np.zeros((3, 6), np.float32)}
    folded = fold_adapter(base, adapter)
    np.testing.assert_allclose(folded["fc.weight"], 1 + update, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(folded["head.weight"], 1.0)


def test_a_sum_of_products_is_a_plain_adapter() -> None:
    members = [
        Adapter(tensors, {"peft_type": kind, "r": 2, "alpha": 2}) for kind, tensors in (("LOHA", LOHA), ("LOKR", LOKR))
    ]
    result = stack_adapters(members, normalize=False).result
    assert (result.family.name, result.config["peft_type"]) == ("PEFT", "LORA")
    total = sum(member.pairs[f"{P}fc"].delta() for member in members)
    np.testing.assert_allclose(result.pairs[f"{P}fc"].delta(), total, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "tensors", "says"),
    [
        ({"peft_type": "LOHA", "r": 3, "alpha": 2}, LOHA, "the rank 3, its factors have 2"),
        ({"peft_type": "LOKR", "r": 2, "alpha": 2}, {f"{P}fc.weight": np.ones((2, 2))}, "holds no factors of LOKR"),
        (
            {"peft_type": "ADALORA"},
            LOHA,
            "is of type 'ADALORA'; LORA, LOHA and LOKR are read as pairs of factors: merge",
        ),
        (
            {"peft_type": "VERA"},
            LOHA,
            "PeftModel.from_pretrained(base, folder).merge_and_unload().save_pretrained(out)",
        ),
        ({"peft_type": "PREFIX_TUNING"}, LOHA, "is no change of weights, so that there is nothing to blend or fold"),
    ],
)
def test_what_is_not_read_is_refused_with_a_way_out(config: dict[str, Any], tensors: Any, says: str) -> None:
    with pytest.raises(InputError) as error:
        Adapter(tensors, config)
    assert says in str(error.value)


@pytest.mark.parametrize(("config", "says"), [({"r": 2}, "alpha=None"), ({"alpha": 2, "r": "x"}, "r='x'")])
def test_a_configuration_gives_the_scale(config: dict[str, Any], says: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LOHA", **config}))
    safetensors.numpy.save_file(LOHA, tmp_path / "adapter_model.safetensors")
    with pytest.raises(InputError, match=f"has {says}; it must give a number"):
        Adapter.read(tmp_path)


def test_peft_merges_the_same(tmp_path: Path) -> None:
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    for config in (
        peft.LoHaConfig(r=3, alpha=5, target_modules=["0", "1"], use_effective_conv2d=True),
        peft.LoHaConfig(r=3, alpha=5, target_modules=["0", "1"], rank_pattern={"1": 2}),
        peft.LoKrConfig(r=8, alpha=4, target_modules=["0", "1"]),
        peft.LoKrConfig(r=1, alpha=4, target_modules=["0", "1"], decompose_both=True, use_effective_conv2d=True),
    ):
        network = torch.nn.Sequential(torch.nn.Linear(12, 8), torch.nn.Conv2d(4, 6, 3))
        base = {name: value.numpy().copy() for name, value in network.state_dict().items()}
        model = peft.get_peft_model(network, config)
        with torch.no_grad():
            for value in model.parameters():
                if value.requires_grad:
                    value.normal_()
        model.save_pretrained(tmp_path)
        merged = model.merge_and_unload().state_dict()
        for name, value in fold_adapter(base, tmp_path).items():
            np.testing.assert_allclose(value, merged[name].numpy(), rtol=1e-4, atol=1e-4)
