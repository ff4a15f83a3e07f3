"""`python -m claims`: run claims, hold them against their recorded outcomes, write what came out."""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from claims import HERE, SCALES, ClaimError, Record, Source, discover, recorded
from claims.harness.fresh import fresh_seeds, held_at, noted, taken_over, untried
from claims.harness.ledger import outcome_of, renewed, results, unchanged, written
from claims.harness.touched import touched

Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None, *, folder: Path = HERE) -> int:
    """Run what was asked for. Exit 0: all outcomes as recorded (with --broken: no claim holds), 1: not so, 2: usage."""
    asked = _parser().parse_args(arguments)
    try:
        sources = discover(folder)
        outcomes = recorded(folder / "recorded.json")
        if asked.list:
            for paper, source in sources.items():
                outcome = outcomes.get(paper, {}).get("outcome", "unrecorded")
                says = f"{source.reference}: {source.says}" if source.reference else source.says
                print(f"{paper:4d}  {outcome:13s}  {says}")
            return 0
        chosen = _choose(asked, sources, folder)
        if asked.write and asked.broken:
            raise ClaimError("--write with --broken: RESULTS.md tells how claims come out with their mechanism on")
        whole = asked.all and not asked.fresh
        before = (
            ""
            if whole or not asked.write
            else written(folder, seed=0 if asked.fresh else asked.seed, scale=asked.scale)
        )
    except ClaimError as error:
        print(f"claims: {error}", file=sys.stderr)
        return 2
    if asked.fresh:
        _fresh(chosen, outcomes, asked, folder)
        if asked.write:
            _write(folder / "RESULTS.md", renewed(before, [], seed=0, scale=asked.scale, folder=folder))
        return 0
    rows = []
    for number, source in enumerate(chosen, 1):
        row = run(source, outcomes.get(source.paper), seed=asked.seed, scale=asked.scale, broken=asked.broken)
        rows.append(row)
        print(f"[{number}/{len(chosen)}] " + _line(row), flush=True)
    if asked.json:
        _write(Path(asked.json), json.dumps(rows, indent=1, default=_plain) + "\n")
    if asked.write:
        for row, source in zip(rows, chosen, strict=True):
            if unchanged(before, row):
                _write(folder / "fresh.json", taken_over(folder / "fresh.json", source))
        make = results if whole else functools.partial(renewed, before)
        _write(folder / "RESULTS.md", make(rows, seed=asked.seed, scale=asked.scale, folder=folder))
    unrecorded = [row["paper"] for row in rows if row["recorded"] == "unrecorded"]
    for paper in unrecorded if not asked.broken else ():
        outcome = '{"outcome": "holds"}'
        print(f'claims: {paper} is not recorded; add "{paper}": {outcome} to claims/recorded.json', file=sys.stderr)
    wrong = [row["paper"] for row in rows if not row["agrees"] and (asked.broken or row["paper"] not in unrecorded)]
    if wrong:
        meant = "held although broken, or failed to run" if asked.broken else "came out otherwise than recorded"
        print(f"claims: {', '.join(map(str, wrong))} {meant}", file=sys.stderr)
    return 1 if wrong or (unrecorded and not asked.broken) else 0


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


def _fresh(chosen: Sequence[Source], outcomes: Mapping[int, Record], asked: argparse.Namespace, folder: Path) -> None:
    """Each claim at further seeds until it was tried at so many, so that a stopped run goes on where it was.

    What came out is kept in fresh.json after each seed. Reports, and is no gate.
    """
    seeds = fresh_seeds(asked.seed, asked.fresh)
    path = folder / "fresh.json"
    for number, source in enumerate(chosen, 1):
        record = outcomes.get(source.paper)
        if (record or {}).get("outcome") == "not-run":
            continue
        for seed in untried(path, source, seeds):
            row = run(source, record, seed=seed, scale=asked.scale)
            failed = [name for name, met in row.get("criteria", {}).items() if not met]
            _write(path, noted(path, source, seed, held=row.get("met") is True, failed=failed))
            print(f"[{number}/{len(chosen)}] seed {seed}: " + _line(row), flush=True)
        tried, held = held_at(path, source)
        print(f"{source.paper} {source.name}: held at {held} of {tried} fresh seeds", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m claims", description="Re-run what the papers promise.")
    parser.add_argument("--ids", nargs="+", type=int, metavar="PAPER", help="the papers whose claims to run")
    parser.add_argument("--all", action="store_true", help="run every claim")
    parser.add_argument("--changed", metavar="REV", help="run the claims that the changes since this revision touch")
    parser.add_argument("--rotate", type=int, metavar="N", help="also run every N-th claim; --turn says which ones")
    parser.add_argument("--turn", type=int, default=0, help="whole number; N turns in a row run every claim once")
    parser.add_argument("--list", action="store_true", help="print each claim and its recorded outcome, run nothing")
    parser.add_argument("--seed", type=int, default=0, help="whole number that every draw of a claim derives from")
    parser.add_argument("--scale", choices=SCALES, default="small", help="small: about 10 s a claim; full: more data")
    parser.add_argument("--broken", action="store_true", help="switch the mechanism off: then no claim may hold")
    parser.add_argument("--fresh", type=int, metavar="N", help="try each until N seeds that nobody tuned on are noted")
    parser.add_argument("--json", metavar="FILE", help="write the outcomes to this file")
    parser.add_argument("--write", action="store_true", help="renew the rows of these claims in RESULTS.md")
    return parser


def _choose(asked: argparse.Namespace, sources: Mapping[int, Source], folder: Path) -> list[Source]:
    if asked.seed < 0:
        raise ClaimError(f"--seed {asked.seed}: give a whole number >= 0")
    if asked.rotate is not None and asked.rotate < 1:
        raise ClaimError(f"--rotate {asked.rotate}: give a whole number >= 1")
    if asked.fresh is not None and asked.fresh < 1:
        raise ClaimError(f"--fresh {asked.fresh}: give a whole number >= 1")
    if not (asked.ids or asked.all or asked.changed or asked.rotate):
        raise ClaimError("say which: --ids PAPER ..., --all, --changed REV, --rotate N, or --list")
    unknown = [paper for paper in asked.ids or () if paper not in sources]
    if unknown:
        raise ClaimError(f"no claim for paper {unknown[0]}; there are {', '.join(map(str, sources))}")
    wanted = set(sources if asked.all else asked.ids or ())
    if asked.changed:
        wanted |= touched(asked.changed, sources, folder.parent)
    if asked.rotate:
        # Each claim's turn depends on its place in the list, so that the turns are of equal length.
        wanted |= {paper for place, paper in enumerate(sources) if place % asked.rotate == asked.turn % asked.rotate}
    return [sources[paper] for paper in sources if paper in wanted]


def _line(row: Row) -> str:
    verdict = "as recorded" if row["agrees"] else f"recorded: {row['recorded']}"
    if row["broken"]:
        verdict = "as it must when broken" if row["agrees"] else "broken, so it must not"
    text = f"{row['paper']} {row['claim']}: {outcome_of(row)} ({verdict}), {row['seconds']:.1f} s"
    return text + (f"; {row['error']}" if row["error"] else "")


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as JSON has them."""
    return value.tolist()


if __name__ == "__main__":
    raise SystemExit(main())
