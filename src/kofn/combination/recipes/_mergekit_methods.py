"""mergekit's methods: which settings each has, and the rule that they make."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kofn.combination.recipes import _mergekit_rules as elementwise
from kofn.combination.recipes import _mergekit_spheres as spheres
from kofn.combination.recipes._mergekit_settings import REQUIRED, Lookup, Read, amount, flag, number, share, whole
from kofn.combination.rules import Rule

# What is said of a recipe of methods that do not give mergekit's figures to the last place.
DRAWN = "which entries are dropped is drawn with a seed of our own: the figures are mergekit's in the mean"
ROUNDED = (
    "which entries are taken is decided by sums whose rounding in mergekit, in the dtype that models are read in, is "
    "as large as what they measure, so that it takes a few others (with dtype: float64 the same)"
)


@dataclass(frozen=True)
class Method:
    """How a method reads its settings.

    `base` says that the base is no member, `optional_base` that it is none where one is named; `pads` that a model of
    weight zero changes nothing. `note` is what is said of the recipe as a whole.
    """

    make: Callable[[Lookup], Rule]
    base: bool = False
    optional_base: bool = False
    weighs: bool = True
    pads: bool = False
    note: str = ""


def _task_vectors(
    sparsify: str | None = None, *, by_sign: bool = False, divide: bool = False, rescale: bool = False
) -> Method:
    def make(setting: Lookup) -> Rule:
        return elementwise.TaskVectors(
            densities=setting.each("density", number, 1.0) if sparsify else (),
            sparsify=sparsify,
            by_sign=by_sign,
            divide=setting.shared("normalize", flag, divide),
            rescale=setting.shared("rescale", flag, rescale),
            scale=setting.shared("lambda", number, 1.0),
            gammas=setting.each("gamma", share, 0.01) if sparsify == "outliers" else (),
            epsilons=setting.each("epsilon", amount, 0.15) if sparsify == "ranks" else (),
        )

    return Method(make, base=True, pads=True, note=DRAWN if sparsify in ("random", "ranks") else "")


def _linear(setting: Lookup) -> Rule:
    return elementwise.Linear(divide=setting.shared("normalize", flag, True))


def _slerp(setting: Lookup) -> Rule:
    return spheres.SphericalLinear(t=setting.shared("t", number))


def _nuslerp(setting: Lookup) -> Rule:
    columns, flatten = setting.shared("nuslerp_row_wise", flag, False), setting.shared("nuslerp_flatten", flag, True)
    return spheres.NuSlerp() if flatten else spheres.LinewiseNuSlerp(columns=columns)


def _multislerp(setting: Lookup) -> Rule:
    return spheres.MultiSlerp(
        divide=setting.shared("normalize_weights", flag, True), eps=setting.shared("eps", amount, 1e-8)
    )


def _karcher(setting: Lookup) -> Rule:
    return spheres.KarcherMean(max_iter=setting.shared("max_iter", whole, 10), tol=setting.shared("tol", amount, 1e-5))


def _model_stock(setting: Lookup) -> Rule:
    return spheres.RowwiseModelStock() if setting.shared("filter_wise", flag, False) else spheres.ModelStock()


def _nearswap(setting: Lookup) -> Rule:
    return elementwise.NearSwap(t=setting.shared("t", amount))


def _sce(setting: Lookup) -> Rule:
    return elementwise.Sce(select_topk=setting.shared("select_topk", number, 1.0))


def _arcee_fusion(_setting: Lookup) -> Rule:
    return elementwise.Fusion()


def _passthrough(setting: Lookup) -> Rule:
    return elementwise.Passthrough(scale=setting.each("scale", number, None)[0])


def _ram(setting: Lookup) -> Rule:
    return elementwise.Ram(epsilon=setting.shared("epsilon", amount, 1e-5))


def _ram_plus(setting: Lookup) -> Rule:
    return elementwise.Ram(
        epsilon=setting.shared("epsilon", amount, 1e-5),
        r=setting.shared("r", number, 0.1),
        alpha=setting.shared("alpha", amount, 0.2),
    )


METHODS: dict[str, Method] = {
    "linear": Method(_linear, pads=True),
    "slerp": Method(_slerp, weighs=False),
    "nuslerp": Method(_nuslerp, optional_base=True),
    "multislerp": Method(_multislerp, optional_base=True),
    "karcher": Method(_karcher, weighs=False),
    "model_stock": Method(_model_stock, base=True, weighs=False),
    "nearswap": Method(_nearswap, base=True, weighs=False),
    "sce": Method(_sce, base=True, weighs=False),
    "ram": Method(_ram, base=True, weighs=False),
    "ramplus_tl": Method(_ram_plus, base=True, weighs=False),
    "arcee_fusion": Method(_arcee_fusion, base=True, weighs=False, note=ROUNDED),
    "passthrough": Method(_passthrough, weighs=False),
    "task_arithmetic": _task_vectors(),
    "ties": _task_vectors("magnitude", by_sign=True, divide=True),
    "dare_ties": _task_vectors("random", by_sign=True, rescale=True),
    "dare_linear": _task_vectors("random", rescale=True),
    "della": _task_vectors("ranks", by_sign=True, divide=True, rescale=True),
    "della_linear": _task_vectors("ranks", rescale=True),
    "breadcrumbs": _task_vectors("outliers"),
    "breadcrumbs_ties": _task_vectors("outliers", by_sign=True),
}


def settings_of(method: str, setting: Lookup) -> tuple[Rule, list[float]]:
    """The rule of a method, and the weights of its members (none where it has no weights)."""
    form = METHODS[method]
    weights = list(setting.each("weight", number, REQUIRED)) if form.weighs else []
    return form.make(setting), weights


@functools.cache
def settings_asked(method: str) -> frozenset[str]:
    """The settings that a method has."""
    asked = _Asked("", 0.0, (), ())
    settings_of(method, asked)
    return frozenset(asked.used)


def known_settings() -> frozenset[str]:
    """The settings that some method has, and `int8_mask`, which decides in mergekit how masks are held only."""
    return frozenset({"int8_mask"}).union(*map(settings_asked, METHODS))


class _Asked(Lookup):
    """A lookup that notes what is asked for, and answers with defaults."""

    def shared(self, key: str, read: Read, default: Any = REQUIRED) -> Any:
        self.used[key] = 0.0 if default is REQUIRED else default
        return self.used[key]

    def each(self, key: str, read: Read, default: Any = REQUIRED) -> tuple[Any, ...]:
        return (self.shared(key, read, default),)
