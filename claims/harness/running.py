"""One claim, run and held against its record; and many of them, here or spread over processes or a Ray cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from claims import Record, Source
from kofn.engines.base import Engine
from kofn.engines.local import Local

Row = dict[str, Any]


class Job(NamedTuple):
    """What one run of a claim takes."""

    source: Source
    record: Record | None
    seed: int
    scale: str
    broken: bool


def rows_of(jobs: Sequence[Job], engine: Any, workers: int | None) -> Iterator[Row]:
    """The outcomes in the order of the claims.

    Args:
        jobs: the runs.
        engine: None runs one claim after another in this process; "local" several at a time, each in a process that
            takes claim after claim; "ray", an address of Ray or an engine: there. Workers must see these files.
        workers: how many run at a time, default all cores.
    """
    if engine is None:
        yield from map(outcome, jobs)
        return
    from kofn.engines.opening import opened

    ran: Engine
    with opened(Local(workers, processes=True) if engine == "local" else engine, workers) as ran:
        yield from ran.map(outcome, jobs)


def outcome(job: Job) -> Row:
    """The outcome of one run, as a task."""
    return run(job.source, job.record, seed=job.seed, scale=job.scale, broken=job.broken)


def run(source: Source, record: Record | None, *, seed: int, scale: str = "small", broken: bool = False) -> Row:
    """Run one claim and say whether it came out as recorded; with `broken`, whether it failed as it must."""
    outcome = record["outcome"] if record else "unrecorded"
    row: Row = {
        "paper": source.paper,
        "claim": source.name,
        "reference": source.reference,
        "holds": None,
        "measured": {},
        "expected": "",
        "baseline": "",
    }
    row |= {
        "kind": "",
        "says": source.says,
        "seconds": 0.0,
        "recorded": outcome,
        "reason": (record or {}).get("reason"),
        "fails": (record or {}).get("fails", []),
        "history": (record or {}).get("history", []),
    }
    row |= {"seed": seed, "scale": scale, "broken": broken, "error": None, "agrees": False}
    if outcome == "not-run":
        return row | {"agrees": True}
    began = time.perf_counter()
    try:
        evidence = source.load().check(seed=seed, scale=scale, broken=broken)
        parts = evidence.parts({} if broken else record or {})
    except Exception as error:  # a claim that raises is an outcome of its own: it neither holds nor fails to hold
        return row | {"error": f"{type(error).__name__}: {error}", "seconds": time.perf_counter() - began}
    row |= {"holds": bool(evidence.holds), "measured": dict(evidence.measured), "expected": evidence.expected}
    row |= {"baseline": evidence.baseline, "kind": evidence.kind, "seconds": time.perf_counter() - began}
    met = evidence.holds_but_for((record or {}).get("fails", ()))
    return row | {
        "criteria": parts,
        "met": met,
        "agrees": met == (not broken and outcome in ("holds", "holds-in-part")),
    }
