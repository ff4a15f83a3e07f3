"""`kofn select`: a file of rows in, the picks out."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from kofn.cli import options as shared_options
from kofn.cli.options import VerbCommand


@click.command("select", cls=VerbCommand, verb="select", short_help="Pick rows.")
@click.argument("file", metavar="FILE")
@click.option("-k", "--k", type=int, help="How many to pick; with --budget, at most how many.")
@click.option("--text", metavar="COL", help="Compare rows by this text column (TF-IDF and SVD, or --embedder).")
@click.option("--embedder", metavar="NAME_OR_PATH", help="Sentence-transformers model for --text; needs kofn[text].")
@click.option("--vectors", metavar="COL", help="Compare rows by this column of vectors (or this array of an .npz).")
@click.option("--columns", metavar="A,B", help="Compare rows by these columns: numbers scaled, categories one-hot.")
@click.option("--score", "score_column", metavar="COL", help="Pick by this column's scores.")
@click.option("--scores", "by_scores", is_flag=True, help="The columns are scores; pick entries of the table.")
@click.option("--per-item", type=int, help="With --scores: entries that a row may hold.")
@click.option("--capacity", type=int, help="With --scores: entries that a column may hold.")
@click.option("--rankings", "by_rankings", is_flag=True, help="The columns are judges; pick what they rate highest.")
@click.option("--id", "id_column", metavar="COL", help="Column of unique ids, default the row number.")
@click.option("--cost", "cost_column", metavar="COL", help="Column of costs, with --budget.")
@click.option("--weight", "weight_column", metavar="COL", help="Column of weights: how much each row counts.")
@click.option("--budget", type=float, help="What the picks may cost in total.")
@click.option(
    "--quota", "quotas", multiple=True, metavar="COL=GROUP:A-B", help="From A to B of a group (repeatable; A- or -B)."
)
@click.option("--group", "group_column", metavar="COL", help="Column of groups, for methods that take them.")
@click.option("--label", "label_column", metavar="COL", help="Column of classes, for methods that take y.")
@click.option("--include", metavar="IDS_OR_FILE", help="Ids that must be picked: a,b,c or a file.")
@click.option("--exclude", metavar="IDS_OR_FILE", help="Ids that must not be picked.")
@click.option("--start", metavar="OLD_PICKS", help="Go on from these picks: a plan or a file of ids.")
@click.option("--objective", metavar="NAME", help="What the picks maximise: `kofn methods objectives`.")
@click.option("--metric", metavar="NAME", help="euclidean (default), sqeuclidean, cosine, precomputed.")
@click.option("--dedupe", type=float, metavar="COSINE", help="Drop near-duplicates first, from this cosine on.")
@click.option("--images", metavar="ARRAY", help="Array of an .npz with one image a row, for the report.")
@shared_options.shared(output="Where the picks go (.csv, .tsv, .parquet, .jsonl): all columns plus rank and gain.")
def command(file: str, **values: Any) -> int:
    """Pick which rows of FILE to keep (CSV, TSV, Parquet, JSONL, NPY, NPZ), in the order that a smaller budget would
    keep.

    \b
    kofn select pool.parquet --text body -k 500 -o picks.parquet --report picks.html
    kofn select pool.csv --columns age,city --budget 900 --cost minutes -o picks.csv
    kofn select pool.jsonl --text q --quota 'lang=de:10-50' --quota 'lang=fr:10-' -k 200 -o picks.jsonl
    kofn select pool.jsonl --text q -m rds_plus --queries wanted.txt -k 500 -o picks.jsonl
    kofn select pool.csv --columns age,bmi --group site --label died -m sources_by_shift --target mine --most 3
    """
    from kofn.cli.estimate import say_beforehand
    from kofn.cli.pool import SelectJob

    job = SelectJob(file, values, sys.argv[1:])
    if values["dry_run"]:
        say_beforehand("select", job.method, job.options, job.call(), values["as_json"])
        return 0
    job.run()
    click.echo(json.dumps(job.as_json()) if values["as_json"] else job.summary())
    return 0
