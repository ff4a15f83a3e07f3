"""Every registered torch form against the NumPy form that it names, on drawn inputs."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kofn import nn
from kofn.core.checks import InputError
from kofn.core.plans import Assignment, Blend, Selection
from kofn.core.torch_module import ModuleSpec, declared, module, same_words
from kofn.nn import Routes
from kofn.selection import topk_mask

SPECS = {name: vars(form)["__kofn_module__"] for name in nn.__all__ if name != "Routes" for form in [getattr(nn, name)]}
TWINS = [name for name, spec in SPECS.items() if spec.form_of is not None]


# Where a NumPy form is looked for.
PACKAGES = ("selection", "assignment", "allocation", "combination", "federated", "online", "optim", "neighbors")


def numpy_form(spec: ModuleSpec) -> Any:
    """The function that `form_of` names, in the family of the same path."""
    for package in PACKAGES:
        families = importlib.import_module(f"kofn.{package}")
        if families.HOMES.get(spec.form_of, "").startswith(spec.family.replace("/", ".") + "."):
            return getattr(families, str(spec.form_of))
    raise LookupError(f"{spec.file}: form_of={spec.form_of!r} is not in a family {spec.family!r} of {PACKAGES}")


def flat(answer: Any) -> np.ndarray[Any, Any]:
    """The numbers of an answer in one row, so that plans, routes, tensors and arrays compare."""
    if isinstance(answer, Routes):
        return flat(answer.dense())
    if isinstance(answer, Assignment):
        table = np.zeros((answer.n, answer.k))
        table[np.repeat(np.arange(answer.n), np.diff(answer.indptr)), answer.bins] = answer.weights
        return table.ravel()
    if isinstance(answer, Selection):
        return answer.mask.ravel().astype(np.float64)
    if isinstance(answer, Blend):
        return flat(answer.result)
    if isinstance(answer, tuple):
        return np.concatenate([flat(part) for part in answer])
    return np.asarray(torch.as_tensor(answer).detach()).astype(np.float64).ravel()


def compare(form: Any, spec: ModuleSpec, seed: int) -> None:
    assert spec.example is not None
    try:
        ours, theirs = spec.example(form, numpy_form(spec), np.random.default_rng(seed))
    except InputError:
        raise AssertionError(f"the example of {spec.name} draws what is refused, at seed {seed}") from None
    np.testing.assert_allclose(flat(ours), flat(theirs), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", TWINS)
def test_torch_form_agrees_with_numpy_form(name: str) -> None:
    for seed in range(20):
        compare(getattr(nn, name), SPECS[name], seed)


@pytest.mark.parametrize("name", TWINS)
def test_examples_differ_from_one_another(name: str) -> None:
    spec = SPECS[name]
    assert spec.example is not None
    answers = {
        flat(spec.example(getattr(nn, name), numpy_form(spec), np.random.default_rng(seed))[1]).tobytes()
        for seed in range(20)
    }
    assert len(answers) > 10


def test_a_wrong_torch_form_is_found_out() -> None:
    def draw(rng: np.random.Generator) -> dict[str, Any]:
        return {"scores": rng.integers(0, 3, (4, 4)).astype(np.float32), "k": 5}

    def lowest(scores: torch.Tensor, *, k: int) -> torch.Tensor:
        return nn.topk_mask(-scores, k=k)

    lowest.__module__ = "kofn.nn.networks._lowest"
    wrong = module(form_of="topk_mask", paper=121, example=same_words(draw))(lowest)
    with pytest.raises(AssertionError):
        compare(wrong, wrong.__kofn_module__, 0)
    assert numpy_form(wrong.__kofn_module__) is topk_mask


def test_a_twin_is_compared_on_something() -> None:
    with pytest.raises(ValueError, match="go together"):
        module(form_of="topk_mask", paper=121)
    stray = ModuleSpec("lost", "no_such_form", 121, "", (), "nn/networks/_lost.py")
    with pytest.raises(LookupError, match="form_of='no_such_form' is not in a family 'networks'"):
        numpy_form(stray)


def test_registrations_are_read_from_the_source() -> None:
    read = {spec.name: spec for spec in declared()}
    assert read == SPECS
    assert all(spec.summary for spec in read.values())


def test_reading_registrations_imports_no_torch() -> None:
    program = (
        "import sys\nfrom kofn.core.torch_module import declared\nlist(declared())\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_is_no_literal_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "nn" / "networks").mkdir(parents=True)
    (tmp_path / "nn" / "networks" / "_lost.py").write_text("@module(form_of=NAME, paper=3)\ndef lost(): ...\n")
    with pytest.raises(ValueError, match=r"nn/networks/_lost\.py: lost: write form_of= as a literal"):
        list(declared(tmp_path))
