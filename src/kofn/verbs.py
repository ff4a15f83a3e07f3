"""The four verbs and `methods`: thin doors to the registry."""

from __future__ import annotations

import html
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kofn import _index
from kofn.core import dispatch, registry
from kofn.core.auto import AUTO
from kofn.core.checks import InputError, collected, nearest, reading, share_of_rows, shown, weights_of_text
from kofn.core.checks.kinds import frame_kind, table_kind
from kofn.core.number_of_groups import entry_of, finds_k, with_equal_sizes
from kofn.core.signatures import documented
from kofn.core.vocabulary import SETTINGS, VOCABULARY, argument, meant
from kofn.core.words import OF_TABLES, OF_TABLES_BY_VERB, Words
from kofn.tables.words import COLUMNS_AS_TYPED, asks_of_a_table

if TYPE_CHECKING:
    from kofn.core.plans import Allocation, Assignment, Blend, Selection

Method = str | Callable[..., Any]
# The verbs whose items may be the rows of a table, or texts.
_OF_ROWS = ("select", "assign")
LEAD = {"select": "X", "assign": "X", "allocate": "curves", "combine": "members"}


def run_verb(verb: str, method: Method, options: Mapping[str, Any] | None, arguments: dict[str, Any]) -> Any:
    given = {name: value for name, value in arguments.items() if value is not None}
    if verb in _OF_ROWS:
        X = given.get("X")
        with reading("X", X):
            of_table = asks_of_a_table(X, given)
        if of_table:
            return _of_table(verb, method, options, given)
    if verb == "allocate" and given.get("curves") is not None:
        answer = _of_items(method, options, given)
        if answer is not None:
            return answer
    if verb == "combine" and (given.get("rankings") is not None or given.get("members") is not None):
        given = _aligned(method, given, options)
        answer = _of_columns(method, options, given)
        if answer is not None:
            return answer
    method, given, own = settled(verb, method, options, given)
    for name in SETTINGS & given.keys():
        # Settings that the method ignores are still read: a typo in them must not pass in silence.
        argument(name, given[name])
    return dispatch.dispatch(verb, method, given, own, given.pop("ids", None))


def _aligned(method: Method, given: dict[str, Any], options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The call with members that are frames or series, and the answers, matched by the names of columns and rows."""
    members = given.get("members")
    several = members.values() if isinstance(members, Mapping) else members if isinstance(members, list | tuple) else ()
    if frame_kind(members) != "pandas" and not any(map(table_kind, several)):
        return given
    from kofn.tables.framed_members import aligned

    entry = entry_of("combine", method)
    takes = method == "auto" or (entry is not None and "classes" in entry.options)
    return aligned(given, options if isinstance(options, Mapping) else {}, takes_classes=takes)


def settled(
    verb: str, method: Method, options: Mapping[str, Any] | None, arguments: Mapping[str, Any]
) -> tuple[Method, dict[str, Any], dict[str, Any]]:
    """The method that a call of arrays means ("auto" where any may answer), its words, and the method's own options.

    Args:
        verb: the verb.
        method: the method as it was given.
        options: own options that were given as a mapping.
        arguments: words and own options that were given flat, none of them None.

    Examples:
        >>> settled("assign", "auto", None, {"X": [[0.0], [1.0]], "k": 2, "min_size": 1})
        ('auto', {'X': [[0.0], [1.0]], 'k': 2}, {'min_size': 1})
    """
    given = dict(arguments)
    if not isinstance(method, str) and not callable(method):
        raise InputError(f"method={shown(method)}: no such {verb} method; give a name or a callable")
    if options is not None and not isinstance(options, Mapping):
        raise InputError(f"options={shown(options)}: give a mapping, or the options themselves by name")
    if verb == "allocate" and frame_kind(given.get("curves")) == "lazy":
        with reading("curves", given["curves"]):
            given["curves"] = collected(given["curves"])
    if verb == "allocate" and hasattr(given.get("curves"), "columns"):
        from kofn.tables.levels import with_named_levels

        entry = entry_of(verb, method)
        given = with_named_levels(given, of_levels=entry is None or "levels" in entry.options)
    if verb == "select" and isinstance(given.get("k"), str):
        given["k"] = _count_of(given)
    if verb == "select" and isinstance(given.get("k"), float) and 0 < given["k"] < 1:
        share = f"{100 * given['k']:g}%"
        raise InputError(f"k={shown(given['k'])}: give a whole number, or that share of the rows as k={share!r}")
    if verb == "combine" and isinstance(given.get("weights"), str):
        given["weights"] = weights_of_text(given["weights"])
    if verb == "assign" and "equal" in given:
        given = with_equal_sizes(given)
    if verb == "assign" and isinstance(given.get("k"), str):
        method = finds_k(method, given.pop("k"), set(given))
    own = dict(options or {})
    for name in [name for name in given if name not in VOCABULARY]:
        if name in own:
            raise InputError(f"{name} is given twice: flat and in options; give it once")
        own[name] = given.pop(name)
    method = _seeks(verb, method, given, own)
    _settle_options(verb, method, given, own)
    return method, given, own


def _count_of(given: Mapping[str, Any]) -> int:
    """How many rows a `k` such as "10%" is of."""
    share = share_of_rows(given["k"])
    pool = next((given[word] for word in ("X", "similarity", "scores") if word in given), ())
    shape = getattr(pool, "shape", None)
    return max(1, round(share * (shape[0] if shape else len(pool))))


def _of_table(verb: str, method: Method, options: Mapping[str, Any] | None, given: dict[str, Any]) -> Any:
    """The answer of a call about a table: the same code reads it as for the command."""
    from kofn.tables.doors import answer

    def run(method: Method, options: Mapping[str, Any], **words: Any) -> Any:
        return run_verb(verb, method, options, words)

    return answer(verb, run, given.pop("X"), method, options or {}, given)


def _of_items(method: Method, options: Mapping[str, Any] | None, given: dict[str, Any]) -> Any:
    """The amounts of a table's rows by the columns that are named; None where nothing but arrays is given."""
    if frame_kind(given["curves"]) is None:
        return None
    from kofn.tables import allocate_doors

    def run(method: Method, options: Mapping[str, Any], **words: Any) -> Any:
        return run_verb("allocate", method, options, words)

    if not allocate_doors.asks_of_items(method, options, given):
        return None
    return allocate_doors.share(run, method, options or {}, given)


def _in_our_words(given: Mapping[str, Any]) -> dict[str, Any]:
    """The words of a call about a table, those that are called as the command's flags under our names."""
    ours = {word: COLUMNS_AS_TYPED.get(word, word) for word in given}
    for word, name in ours.items():
        if word != name and name in given:
            raise InputError(f"{word} and {name} are one word; give one of them")
    return {ours[word]: value for word, value in given.items()}


def _of_columns(method: Method, options: Mapping[str, Any] | None, given: dict[str, Any]) -> Any:
    """The ranking of a table's rows by the columns that are named or hold numbers, or with answers the blend of its
    columns of predictions; None where neither is asked for."""
    if frame_kind(given.get("rankings", given.get("members"))) is None:
        return None
    from kofn.tables import predictions, rankings

    given = _in_our_words(given)

    def run(method: Method, options: Mapping[str, Any], **words: Any) -> Any:
        return run_verb("combine", method, options, words)

    if predictions.asks_for_a_blend(given):
        return predictions.blend(run, method, options or {}, given)
    return rankings.rank(run, method, options or {}, given) if rankings.asks_for_a_ranking(given) else None


def _seeks(verb: str, method: Method, given: Mapping[str, Any], own: Mapping[str, Any]) -> Method:
    """The method that is meant by queries alone: a question about them. With an objective they are its parameter."""
    if verb != "select" or method != "auto" or "queries" not in own or "objective" in given:
        return method
    taken = set(dispatch.methods_of("select")["marginal_relevance"].options)
    return "marginal_relevance" if own.keys() <= taken else method


def _settle_options(verb: str, method: Method, given: dict[str, Any], own: dict[str, Any]) -> None:
    """Tell a method's own options from the objective's parameters, which become part of its text."""
    entry = entry_of(verb, method)
    if entry is None and method != "auto":
        return
    index = dispatch.methods_of(verb)
    known = set(entry.options) if entry else {name for row, _ in AUTO[verb] for name in index[row].options}
    unknown = [name for name in own if name not in known]
    objective = given.get("objective")
    if objective is None and given.keys() & {"X", "similarity"} and (entry is None or "objective" in entry.accepted):
        objective = "facility_location"
    if unknown and isinstance(objective, str) and verb == "select":
        from kofn.objectives import base

        parameters = base.parameters_of(objective)
        theirs = {name: own.pop(name) for name in unknown if name in parameters}
        if theirs:
            given["objective"] = base.with_parameters(objective, theirs)
        unknown = [name for name in unknown if name not in theirs]
    for name in unknown:
        if entry is not None:
            raise InputError(dispatch.unknown_option(entry, name, index))
        raise InputError(f"{verb} has no argument {name!r}{_meant(name, verb, given, own, index)}")


def _meant(
    name: str, verb: str, given: Mapping[str, Any], own: Mapping[str, Any], index: Mapping[str, registry.Entry]
) -> str:
    takers = sorted(entry.name for entry in index.values() if name in entry.options)
    if takers:
        fitting = [taker for taker in takers if index[taker].fits(given, own)]
        if fitting:
            return (
                f"; it is an option of {', '.join(fitting)}: name {'one of them' if fitting[1:] else 'it'} as method="
            )
        wrong = [f"{taker}, which {dispatch.wrong_with(index[taker], given, own)}" for taker in takers[:3]]
        return f"; it is an option of {'; '.join(wrong)}" + ("; ..." if takers[3:] else "")
    words = [*VOCABULARY, *{option for entry in index.values() for option in entry.options}]
    return meant(name, verb) or nearest(name, words)


def _one_positional(verb: str, extra: tuple[Any, ...]) -> None:
    if extra:
        word = {"select": "k", "assign": "k", "allocate": "budget", "combine": "weights"}[verb]
        shown = repr(extra[0]) if isinstance(extra[0], int | float) else "..."
        raise InputError(
            f"{verb} takes one positional argument, {LEAD[verb]}; name the others, for example {word}={shown}"
        )


def select(
    X: Any = None, *extra: Any, method: Method = "auto", options: Mapping[str, Any] | None = None, **arguments: Any
) -> Selection:
    """Pick which k of n to keep, under a count, a budget and quotas.

    Args:
        X: vectors (n, d), one row an item; a table (pandas, polars, Arrow, `datasets.Dataset`, a dict of columns, the
            path of a file), of whose columns `text`, `vectors` or `columns` say how rows are compared, and `ids`, `y`,
            `groups`, `weights`, `costs`, `scores` and `quotas` may name others; or a list of texts. Or give
            `similarity` (n, n) or `scores` (n,) by name.
        method: a method's name (`kofn.methods("select")`), "auto", or your own callable.
        options: the method's own options as a mapping; a named method's options, and the parameters of an
            objective, may also be given flat, like every other argument.
        **arguments: the words below, and the method's own options.

    Returns:
        A `Selection`: `indices` in the order picked, `gains`, `value`, `bound`, `status`.

    Raises:
        InputError: bad input, or an argument the method does not take; the message says what to do.

    Examples:
        >>> import kofn
        >>> X = [[0.0], [0.1], [5.0], [5.2], [9.0]]
        >>> kofn.select(X, k=2).indices.tolist()
        [2, 0]
        >>> s = kofn.select(X, k=3, groups=list("aabbb"), quotas={"a": (2, None)})
        >>> sorted(s.indices.tolist())
        [0, 1, 2]
        >>> pool = {"body": ["red car", "red bus", "green tree", "a red car"], "lang": ["en", "en", "fr", "en"]}
        >>> s = kofn.select(pool, text="body", quotas={"lang": {"fr": 1}}, k=2)
        >>> s.take(pool)["body"]
        ['red car', 'green tree']
        >>> kofn.select(pool["body"], k=1).indices.tolist()
        [0]
    """
    _one_positional("select", extra)
    result: Selection = run_verb("select", method, options, {"X": X, **arguments})
    return result


def assign(
    X: Any = None, *extra: Any, method: Method = "auto", options: Mapping[str, Any] | None = None, **arguments: Any
) -> Assignment:
    """Decide where each of n items goes: groups around real examples, or bins with a capacity.

    Args:
        X: vectors (n, d); a table or a list of texts, as in `select`; or give `distances` (n, n) or `scores` (n, bins)
            by name.
        method: a method's name (`kofn.methods("assign")`), "auto", or your own callable.
        options: the method's own options as a mapping; they may also be given flat (`overflow="drop"`).
        **arguments: the words below, and the method's own options. `k="auto"` has the number of groups found.

    Returns:
        An `Assignment`: `labels`, `medoids` where there are any, achieved margins, `value`, `bound`.

    Raises:
        InputError: bad input, or an argument the method does not take; the message says what to do.

    Examples:
        >>> import kofn
        >>> a = kofn.assign([[0.0], [0.2], [5.0], [5.1]], k=2, seed=0)
        >>> a.labels[0] == a.labels[1] != a.labels[2] == a.labels[3]
        np.True_
    """
    _one_positional("assign", extra)
    result: Assignment = run_verb("assign", method, options, {"X": X, **arguments})
    return result


def allocate(
    curves: Any = None,
    *extra: Any,
    method: Method = "auto",
    options: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Allocation:
    """Decide how much each of n items gets of a shared budget.

    Args:
        curves: (n, levels) the loss of item i at level l (`sense="max"`: its value). Columns of a frame that are called
            by numbers are the levels of those amounts. Of a table, or the path of its file, `columns` may name the
            levels, and `ids`, `sizes`, `costs`, `weights`, `scores` (in place of curves) and the method's own arrays
            may name columns, as on the command line.
        method: a method's name (`kofn.methods("allocate")`), "auto", or your own callable.
        options: the method's own options as a mapping; they may also be given flat: `sizes`, `levels`, `sense`,
            `mean_budget`.
        **arguments: the words below, and the method's own options.

    Returns:
        An `Allocation`: `amounts`, `values`, the `price` (what more budget brings a unit, by
        the slope to the right of this budget: what one whole unit more brings may differ), `bound`.

    Raises:
        InputError: bad input, or an argument the method does not take; the message says what to do.

    Examples:
        >>> import kofn
        >>> b = kofn.allocate([[9.0, 4.0, 1.0], [5.0, 4.5, 4.4]], budget=2)
        >>> b.amounts.tolist(), b.value, b.status
        ([2, 0], 6.0, 'optimal')
        >>> seats = {"party": ["a", "b"], "votes": [53, 47]}
        >>> kofn.allocate(seats, ids="party", scores="votes", budget=4, method="sainte_lague").amounts.tolist()
        [2, 2]
    """
    _one_positional("allocate", extra)
    result: Allocation = run_verb("allocate", method, options, {"curves": curves, **arguments})
    return result


def combine(
    members: Any = None,
    *extra: Any,
    method: Method = "auto",
    options: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Blend:
    """Blend many into one: checkpoints, arrays, rankings.

    Args:
        members: arrays, torch modules, state dicts (name to array) or paths of safetensors checkpoints; or give
            `rankings` by name, or in its place a leaderboard: a table (a DataFrame, a dict of columns, the path of a
            file) whose rows are ranked by its columns of numbers, or by those of `columns`; `ids` may name a column,
            and `wins=True` says that cells count how often the row won over the column.
        method: a method's name (`kofn.methods("combine")`), "auto", or your own callable.
        options: the method's own options as a mapping; they may also be given flat (`density=0.2`, `out="merged/"`).
        **arguments: the words below, and the method's own options.

    Returns:
        A `Blend`: `result`, `weights`, and `spread`, the distance of each member to the result.

    Raises:
        InputError: bad input, or an argument the method does not take; the message says what to do.

    Examples:
        >>> import kofn
        >>> kofn.combine([[1.0, 2.0], [3.0, 6.0]], weights=[3, 1]).result.tolist()
        [1.5, 3.0]
        >>> board = {"model": ["a", "b", "c"], "arc": [0.5, 0.6, 0.4], "ppl": [3.0, 2.0, 9.0]}
        >>> kofn.combine(board, ids="model", lower=["ppl"]).to_frame()["id"].to_list()
        ['b', 'a', 'c']
    """
    _one_positional("combine", extra)
    result: Blend = run_verb("combine", method, options, {"members": members, **arguments})
    return result


class Methods(list[registry.Entry]):
    """Methods by name, which print as a table."""

    def _cells(self) -> list[tuple[str, str, str, str]]:
        return [(entry.verb, entry.name, entry.summary, entry.inputs) for entry in self]

    def __repr__(self) -> str:
        if not self:
            return "no methods"
        rows = [("verb", "method", "does", "needs"), *self._cells()]
        wide = [max(len(row[column]) for row in rows) for column in range(2)]
        return "\n".join(f"{row[0]:{wide[0]}}  {row[1]:{wide[1]}}  {row[2]} [{row[3]}]" for row in rows)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("verb", "method", "does", "needs"))
        body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in self._cells())
        return f"<table><tr>{head}</tr>{body}</table>"


def methods(verb: str | None = None, *, given: Sequence[str] = ()) -> Methods:
    """What fits this call: one entry a method, with its name, summary, paper, cost and traits.

    Args:
        verb: one verb, or None for all.
        given: the arguments you have, such as `("scores", "capacity")`; methods that would not take them are left out.

    Examples:
        >>> import kofn
        >>> [entry.name for entry in kofn.methods("combine", given=("members", "y"))]
        ['ensemble_selection', 'stacking']
    """
    from kofn.core import checks

    given = list(checks.option("given", given, "Sequence[str]"))
    for word in given:
        if word not in VOCABULARY:
            raise InputError(f"given={word!r} is not an argument{nearest(word, VOCABULARY)}")
    verbs = registry.VERBS if verb is None else (verb,)
    entries = [entry for verb in verbs for entry in dispatch.methods_of(verb).values()]
    return Methods(entry for entry in entries if not given or entry.takes(set(given) - {"ids"}) is not None)


def _describe(verb: str, function: Any) -> None:
    """Show the words of the verb in its signature and docstring: what `help` and editors list."""
    parameters = inspect.signature(function).parameters
    lead, extra, method, options, _rest = parameters.values()
    words = [word for word in _index.words()[verb] if word != lead.name]
    types = Words.__annotations__
    shown = [
        lead.replace(annotation=types[lead.name].__forward_arg__),
        *(
            inspect.Parameter(word, extra.KEYWORD_ONLY, default=None, annotation=types[word].__forward_arg__)
            for word in words
        ),
        *(
            inspect.Parameter(word, extra.KEYWORD_ONLY, default=None, annotation=OF_TABLES[word][0])
            for word in OF_TABLES_BY_VERB.get(verb, ())
        ),
        method,
        options,
        inspect.Parameter("method_options", extra.VAR_KEYWORD, annotation="Any"),
    ]
    sentences = {word: sentence for word, (_type, sentence) in OF_TABLES.items()}
    signature = inspect.Signature(shown, return_annotation=inspect.signature(function).return_annotation)
    function.__signature__ = signature
    function.__doc__ = documented(inspect.getdoc(function) or "", signature, sentences)


for _verb, _function in (("select", select), ("assign", assign), ("allocate", allocate), ("combine", combine)):
    _describe(_verb, _function)
