"""Laws of plans: properties of every plan, and properties that a method declares as traits.

`LAWS[name](case)` raises `LawBroken`, or returns whether there was anything to check. `laws_of(entry)` are the names
that apply to a method: those of every plan, those of its verb, and its traits. Strategies that draw problems are in
`kofn.laws.generators`, imported by name; the naive forms that a family brings are in a file beside its path
(`kofn.laws.families`), with what draws its options. Both need Hypothesis.

>>> case = Case.of("select", "top_k", {"scores": [3.0, 9.0, 5.0], "k": 2})
>>> LAWS["sandwich"](case)
True
>>> import dataclasses
>>> wrong = dataclasses.replace(case, plan=dataclasses.replace(case.plan, value=15.0, bound=15.0))
>>> LAWS["sandwich"](wrong)
Traceback (most recent call last):
kofn.laws.case.LawBroken: select/top_k breaks 'sandwich': value 15.0 is better than the optimum 14.0
"""

from __future__ import annotations

from kofn.laws import amounts, blends, tier0, traits, units
from kofn.laws.case import LAWS, REGISTRY, Case, LawBroken, law, laws_of

__all__ = ["LAWS", "REGISTRY", "Case", "LawBroken", "amounts", "blends", "law", "laws_of", "tier0", "traits", "units"]
