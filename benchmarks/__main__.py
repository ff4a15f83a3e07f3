"""The runner: `python -m benchmarks select --json out.json [--quick]`."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from benchmarks import machine

NAMES = {
    "adapters": "adapters of PEFT, kohya, LyCORIS, diffusers, torchtune and mlx-lm by their own code and by kofn",
    "allocate": "levels under a budget, tied, with shares, two resources or a count, against HiGHS; closed forms",
    "select": "facility location against apricot and submodlib; 100,000 rows; the command line",
    "dry_run": "processor seconds of --dry-run on large pools, with and without compiled code",
    "ensembles": "greedy selection of 20 of 200 models on 100,000 predictions against NumPy and AutoGluon's",
    "farthest": "farthest first on 1,000,000 rows against the NumPy loop and the memory floor",
    "million": "facility location through a neighbour graph, up to 1,000,000 rows",
    "dedupe": "near-duplicates of 100,000 x 256 and of 1,000,000 texts; the answers of brute force",
    "constrained": "capacity-constrained k-means against k-means-constrained, 10,000 x 20 and 23,000 x 50",
    "kmedoids": "FasterPAM against the Rust package on a matrix; 100,000 points without one",
    "dynamic": "calls an update of a pool that changes, n from 500 to 32,000, against lazy greedy at every update",
    "device": "facility location, farthest first and FasterPAM on a GPU (else torch's processor): the same answers",
    "determinant": "log-determinant greedy against the Cholesky-update loop, n=20,000, d=128, k=500",
    "matching": "weight matching of two MLPs of 50M weights; the published loop on a smaller pair",
    "merge": "three checkpoints of 0.87 GB into one against a plain float32 mean and mergekit",
    "merge_advice": "what the report of a merge advises, against accuracy: 200 blends on five data sets",
    "pool": "Parquet in blocks, whatever its row groups; kofn select of files of 1,000,000 x 64 rows: time, memory",
    "quantise": "bits for 1 GB of bf16 weights: time, memory; MiniLM's embeddings after each allocation at equal bits",
    "queries": "rows about a query among 60,000 docstrings: ten picks, judged by the files that they stand in",
    "quotas": "quotas over one and three columns of 50 groups against none, 20,000 rows",
    "rankings": "strengths of 50,000 comparisons against choix; 2,000,000 votes with 200 resamples; Kemeny's optimum",
    "recipes": "mergekit's recipes by mergekit and by kofn: how far the two are apart",
    "rounds": "labelling in five rounds against one, random rows and scikit-activeml, on the sets of usefulness",
    "routing": "balanced assignment against linear_sum_assignment; top-2 capped routing, scores a second",
    "sparse": "selection, groups and neighbours of 132,000 x 17,700 sparse rows: time, memory, growth, scikit-learn",
    "text_vectors": "what texts without a model should be compared by, on the text sets of usefulness",
    "two_round": "two-round greedy on up to 1,000,000 x 64 rows: time, growth, memory, loss against exact greedy",
    "usefulness": "which rows to label: picks against random draws and other ways to pick, on 13 labelled sets",
    "sampled": "selection from 100,000 x 384 float16, k=1,000, from file to plan, and what a sample costs in value",
    "startup": "import kofn, kofn --help, a small call: fresh processes, today's index and one of 400 methods",
    "transport": "exact transport, n=500 to 2,000, against POT's emd; entropic, n=1,000, against its log Sinkhorn",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", default=list(NAMES), help=", ".join(f"{n}: {what}" for n, what in NAMES.items())
    )
    parser.add_argument("--json", dest="path", help="write every figure here")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: does it run at all")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, contenders in turn; medians are quoted")
    parser.add_argument(
        "--goal",
        action="store_true",
        help="usefulness: measure nothing, say what its recorded figures show of the goal",
    )
    asked = parser.parse_args()
    if unknown := set(asked.names) - NAMES.keys():
        parser.error(f"no benchmark {sorted(unknown)[0]!r}; there are: {', '.join(NAMES)}")
    if asked.goal:
        if asked.names != ["usefulness"]:
            parser.error("--goal is of usefulness alone: python -m benchmarks usefulness --goal")
        return _goal(asked.path)
    results = {"machine": machine()}
    print(" ".join(f"{key}={value}" for key, value in results["machine"].items()))
    for name in asked.names:
        results[name] = importlib.import_module(f"benchmarks.{name}").run(quick=asked.quick, rounds=asked.rounds)
    if asked.path:
        path = Path(asked.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1))
        print(f"figures -> {path}")
    return 0


def _goal(path: str | None) -> int:
    """Print what the recorded figures of usefulness say of its goal."""
    from benchmarks.goal import goal_table, goals
    from benchmarks.usefulness import FIGURES

    rows = goals(json.loads(FIGURES.read_text(encoding="utf-8"))["usefulness"]["sets"])
    print(goal_table(rows))
    if path:
        Path(path).write_text(json.dumps(rows, indent=1))
        print(f"figures -> {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
