"""The words of `kofn select`: its flags in sections."""

from __future__ import annotations

from kofn.cli import arguments as words
from kofn.cli.arguments import CAPACITY, NUMBER, flag
from kofn.cli.verb_command import Section

COMPARED = Section(
    "What the rows are compared by",
    (
        words.TEXT,
        words.EMBEDDER,
        words.NO_CACHE,
        words.VECTORS,
        words.columns("Compare rows by these columns: numbers scaled, categories one-hot."),
        words.CATEGORIES,
        words.METRIC,
        flag("--score", "score_column", metavar="COL", help="Pick by this column's scores."),
        flag("--scores", "by_scores", is_flag=True, help="The columns are scores; pick entries of the table."),
        flag("--rankings", "by_rankings", is_flag=True, help="The columns are judges; pick what they rate highest."),
        flag(
            "--queries",
            metavar="FILE|TEXT",
            help="What the picks should be about: a file of texts, a table or vectors, or a text.",
        ),
        flag(
            "--private",
            metavar="FILE",
            help="Rows that are owned already, or must not be told, likewise. With --dedupe alone, rows that repeat "
            "one of them are dropped.",
        ),
        flag(
            "--dedupe",
            type=words.SHARE,
            metavar="SIMILARITY",
            help="Drop near-duplicates first: from this similarity on (0.9 or 90%) texts, which are the same whatever "
            "case and white space, and vectors, by the cosine with --metric cosine, else 1 - distance / typical "
            "distance; rows that agree in --columns. Without -k all others are kept.",
        ),
        flag("--dropped", metavar="PATH", help="Write which rows --dedupe dropped, and for which row."),
    ),
)
WANTED = Section(
    "What is picked",
    (
        flag(
            "-k",
            "--k",
            type=words.COUNT_OR_SHARE,
            metavar="N|N%",
            help="How many to pick, also as a share of the rows; with --budget, at most how many.",
        ),
        flag("--budget", type=NUMBER, help="What the picks may cost in total."),
        flag("--cost", "--costs", "cost_column", metavar="COL", help="Column of costs, with --budget."),
        flag(
            "--quota",
            "--quotas",
            "quotas",
            multiple=True,
            metavar="COL=GROUP:A-B",
            callback=words.parse_quotas,
            help="From A to B of a group (repeatable; A- or -B; shares as 20%-30%; columns may differ); of a cell of "
            "several columns: lang+year=de,2020:3-.",
        ),
        flag(
            "--proportional",
            multiple=True,
            metavar="COL",
            help="Each group of the column, of lang+year each cell, at its share of the pool, to within one pick "
            "(repeatable).",
        ),
        flag(
            "--each",
            multiple=True,
            metavar="COL=N",
            callback=words.parse_counts,
            help="N rows of each group of the column, of lang+year=N each cell, all of those that have fewer: these "
            "are the picks; leave -k out.",
        ),
        flag("--include", metavar="IDS_OR_FILE", type=words.IDS, help="Ids that must be picked: a,b,c or a file."),
        flag("--exclude", metavar="IDS_OR_FILE", type=words.IDS, help="Ids that must not be picked."),
        flag("--start", metavar="OLD_PICKS", help="Go on from these picks: a plan or a file of ids."),
        flag("--objective", metavar="NAME", help="What the picks maximise: `kofn methods objectives`."),
        flag("--per-item", type=int, help="With --scores: entries that a row may hold."),
        flag("--capacity", type=CAPACITY, metavar="N|A,B", help="With --scores: entries that a column may hold."),
    ),
)
KNOWN = Section(
    "What is known of the rows",
    (
        words.ID,
        words.WEIGHT,
        flag(
            "--group", "--groups", "group_column", metavar="COL", help="Column of groups, for methods that take them."
        ),
        words.LABEL,
        flag(
            "--model",
            metavar="NAME",
            help="With --label filled in part: scikit-learn's classifier that says what it is unsure of, or none.",
        ),
        flag(
            "--all",
            "every",
            is_flag=True,
            help="-o holds all rows with their numbers, the picks first: fill in their labels, go on.",
        ),
        flag(
            "--classes",
            type=int,
            metavar="N",
            help="The picks are to be labelled, in about N classes: a hint to auto.",
        ),
        words.IMAGES,
        words.DROP,
        *words.GAPS,
    ),
)
EXPORT = flag(
    "--export",
    type=words.FOR_TOOL,
    multiple=True,
    metavar="TOOL=FILE",
    help="Write the picks for a labelling tool too: label-studio=tasks.json or argilla=records.json (repeatable).",
)
_READS, _WRITES, _WORKS = words.method_section(
    "Where the picks go (.csv, .tsv, .parquet, .jsonl): all columns plus rank and gain."
)
ANSWER = (
    _READS,
    Section(_WRITES.title, (_WRITES.flags[0], EXPORT, *_WRITES.flags[1:])),
    Section(_WORKS.title, (*_WORKS.flags, words.DEVICE)),
)

LARGE = Section(
    "For pools larger than memory (several files, a glob, a folder)",
    (
        flag("--part-rows", type=int, metavar="N", help="How many rows are picked from at once in the first round."),
        flag("--work", metavar="DIR", help="Keep what is done there: a run that was killed goes on where it was."),
        flag("--engine", metavar="NAME", help="Where it runs: local (default) or ray; the same picks."),
        words.ADDRESS,
    ),
)
