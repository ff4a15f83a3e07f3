"""Rated blends of a search over members and weights: counted, recorded and never repeated.

Averaging all members alike is `weighted_mean`. So is fusing fine-tuned models into a better start for further training
(Choshen, Venezian, Slonim & Katz 2022): their mean, used as the next base."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kofn.combination._sweep.blockwise import Sweep
from kofn.combination._sweep.files import SweepOptions
from kofn.combination._sweep.members import Pool
from kofn.combination._sweep.merge import blend_in_memory, check_out, job_digest, lazy_blend, merge
from kofn.combination._sweep.record import Record, rated
from kofn.combination._sweep.rule import Rule
from kofn.combination.averaging._weighted_mean import WeightedMean
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.plans import Blend
from kofn.core.runtime import Control


class Trials:
    """At most `limit` rated blends, each recorded before the next one starts."""

    def __init__(
        self,
        pool: Pool,
        options: SweepOptions,
        score: Any,
        limit: int,
        record: str | os.PathLike[str] | None,
        settings: Mapping[str, Any],
        rule_of: Callable[[Floats], Rule],
        time_limit: float | None,
    ) -> None:
        if not callable(score):
            raise InputError(f"score={checks.shown(score)}: give a callable, score(blend) -> number")
        checks.flag(options.measure, "measure")
        checks.flag(options.skip_nonfinite, "skip_nonfinite")
        if options.out is not None:
            check_out(options.out, pool)  # checked now rather than after all ratings
        self.pool, self.options, self.score, self.limit, self.rule_of = pool, options, score, limit, rule_of
        if record is not None:
            settings = {**settings, "members": job_digest(pool, {}, dataclasses.replace(options, measure=False))}
        self.record = Record(record, settings)
        self.control = Control(time_limit=time_limit, progress=options.progress, total=limit, title="rating blends")
        self.seen: list[dict[str, Any]] = []
        self.calls = 0
        self.stopped = False

    def __enter__(self) -> Trials:
        self.control.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self.control.__exit__(*raised)
        self.record.close()

    def rate(self, weights: Floats) -> float | None:
        """The score of the blend with these weights; None once the search must end."""
        i, listed = len(self.seen), weights.tolist()
        if i >= self.limit or self.stopped:
            return None
        rating = self.record.again(i, listed)
        if rating is None:
            if i and self.control.stopped():
                self.stopped = True
                return None
            blend = self._blend(weights)
            if blend is None:
                return None
            rating = rated(self.score(blend), listed)
            self.calls += 1
            self.record.note(listed, rating)
        self.seen.append({"weights": listed, "score": rating})
        self.control.step(len(self.seen))
        return rating

    def _blend(self, weights: Floats) -> Any:
        """The blend with these weights, over members of non-zero weight; None after Ctrl-C."""
        pool, merge_rule = self.pool, self.rule_of(weights)
        if pool.base is None and pool.vocabulary is None:
            # The first member is always included, because skipped tensors are copied from it.
            used = sorted({0, *np.flatnonzero(weights).tolist()})
            pool = dataclasses.replace(
                pool, members=[pool.members[i] for i in used], labels=[pool.labels[i] for i in used]
            )
            weights, in_double = weights[used], merge_rule.in_double
            merge_rule = WeightedMean.of_weights(weights, merge_rule.form)
            merge_rule.in_double = in_double
        sweep = Sweep(
            pool,
            dict.fromkeys(pool.first, merge_rule),
            max_memory=self.options.max_memory,
            skip_nonfinite=self.options.skip_nonfinite,
            fill=weights if (weights >= 0).all() else None,
        )
        if pool.on_disk:
            return lazy_blend(pool, sweep)
        try:
            _, blend = blend_in_memory(pool, sweep)
        except KeyboardInterrupt:
            if not self.seen:
                raise
            self.stopped = True
            return None
        self.stopped = bool(self.seen) and sweep.control.stopped()
        return None if self.stopped else blend

    def plan(self, weights: Floats, value: float, info: Mapping[str, Any]) -> Blend:
        """The plan of the best blend, written to `out` if given."""
        merge_rule = self.rule_of(weights)
        blend = merge(
            self.pool,
            merge_rule,
            self.options,
            weights=weights,
            form=merge_rule.form,
            info={
                "evaluations": self.seen,
                "oracle_calls": self.calls,
                "resumed": len(self.seen) - self.calls,
                **info,
            },
        )
        return dataclasses.replace(
            blend,
            value=value,
            sense="max",
            objective="blend_score",
            # Factors of task vectors sum to one only by chance, so the form stays "none".
            form=merge_rule.form if self.pool.base is None else "none",
            status="stopped" if self.stopped else "heuristic",
            used={"evaluations": len(self.seen)},
            budget={"evaluations": self.limit},
        )
