"""`python -m claims`: run claims, hold them against their recorded outcomes, write what came out."""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from claims import HERE, SCALES, ClaimError, Record, Source, discover, recorded
from claims.harness.fresh import fresh_seeds, held_at, noted, taken_over, untried
from claims.harness.ledger import outcome_of, renewed, results, unchanged, written
from claims.harness.running import Job, Row, rows_of
from claims.harness.touched import touched
from kofn.core.checks import InputError
from kofn.core.vocabulary import argument
from kofn.engines.opening import addressed


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
        engine = _engine(asked)
        if asked.write and asked.broken:
            raise ClaimError("--write with --broken: RESULTS.md tells how claims come out with their mechanism on")
        whole = asked.all and not asked.fresh
        before = (
            ""
            if whole or not asked.write
            else written(folder, seed=0 if asked.fresh else asked.seed, scale=asked.scale)
        )
    except (ClaimError, InputError) as error:
        print(f"claims: {error}", file=sys.stderr)
        return 2
    if asked.fresh:
        _fresh(chosen, outcomes, asked, engine, folder)
        if asked.write:
            _write(folder / "RESULTS.md", renewed(before, [], seed=0, scale=asked.scale, folder=folder))
        return 0
    rows = []
    jobs = [Job(source, outcomes.get(source.paper), asked.seed, asked.scale, asked.broken) for source in chosen]
    for number, row in enumerate(rows_of(jobs, engine, asked.workers), 1):
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


def _fresh(
    chosen: Sequence[Source],
    outcomes: Mapping[int, Record],
    asked: argparse.Namespace,
    engine: Any,
    folder: Path,
) -> None:
    """Each claim at further seeds until it was tried at so many, so that a stopped run goes on where it was.

    What came out is kept in fresh.json after each seed. Reports, and is no gate.
    """
    seeds = fresh_seeds(asked.seed, asked.fresh)
    path = folder / "fresh.json"
    jobs: list[Job] = []
    last: dict[int, list[Source]] = {}
    for source in chosen:
        record = outcomes.get(source.paper)
        if (record or {}).get("outcome") == "not-run":
            continue
        jobs += [Job(source, record, seed, asked.scale, False) for seed in untried(path, source, seeds)]
        # After so many runs it has been tried at all seeds, as those that were before it have.
        last.setdefault(len(jobs), []).append(source)
    _held(last.get(0, ()), path)
    for number, row in enumerate(rows_of(jobs, engine, asked.workers), 1):
        source, seed = jobs[number - 1].source, jobs[number - 1].seed
        failed = [name for name, met in row.get("criteria", {}).items() if not met]
        _write(path, noted(path, source, seed, held=row.get("met") is True, failed=failed))
        print(f"[{number}/{len(jobs)}] seed {seed}: " + _line(row), flush=True)
        _held(last.get(number, ()), path)


def _held(sources: Sequence[Source], path: Path) -> None:
    """Say at how many fresh seeds claims held."""
    for source in sources:
        tried, held = held_at(path, source)
        print(f"{source.paper} {source.name}: held at {held} of {tried} fresh seeds", flush=True)


def _engine(asked: argparse.Namespace) -> Any:
    """Where the claims run."""
    return argument("engine", addressed(asked.engine, asked.address))


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
    parser.add_argument("--engine", metavar="NAME", help="several claims at a time: local (processes) or ray")
    parser.add_argument("--address", metavar="HOST:PORT", help="of the Ray cluster; also auto, or ray://HOST:PORT")
    parser.add_argument("--workers", type=int, help="how many run at a time, default all cores")
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
