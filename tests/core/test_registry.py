"""The generated index, dispatch and its errors, the user's own rules, compare and methods."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys
from typing import ClassVar

import numpy as np
import polars as pl
import pytest
from refusals import refused

import kofn
from kofn import _index, verbs
from kofn.core.auto import AUTO
from kofn.core.checks import BrokenPlanError, InputError, entropy
from kofn.core.registry import HOMES, LOOPS, VERBS, Entry, method
from kofn.core.vocabulary import VOCABULARY
from kofn.engines.local import Local
from kofn.indexing import collect, packages, stub
from kofn.laws import LAWS, laws_of
from kofn.laws.engines import Shuffled

INDEX = {verb: _index.entries(verb) for verb in VERBS}
ENTRIES = [pytest.param(entry, id=entry.name) for verb in VERBS for entry in INDEX[verb].values()]
X = np.array([[0.0], [0.1], [5.0], [5.2], [9.0]])
SCORES = np.array([[3.0, 1.0], [2.0, 5.0], [4.0, 4.5]])


class TestIndex:
    def test_is_what_the_functions_say(self):
        assert collect.collect() == INDEX

    def test_files_are_up_to_date(self):
        index = collect.collect()
        for path, text in collect.index_files(collect.collect_all()).items():
            assert path.read_text(encoding="utf-8") == text, path.name
        assert (collect.HERE / "verbs.pyi").read_text(encoding="utf-8") == stub.stub_text(index)
        for package in packages.packages():
            assert (package / "__init__.py").read_text(encoding="utf-8") == packages.init_text(package), package
            assert (package / "__init__.pyi").read_text(encoding="utf-8") == packages.stub_text(package), package

    def test_an_entry_survives_its_file(self):
        for entry in _index.everything():
            assert _index.decoded(json.loads(json.dumps(_index.encoded(entry)))) == entry
        assert {entry.form for entry in _index.everything()} == {"function", "merge_rule", "stepper", "module"}

    def test_a_file_named_like_its_function_is_refused(self, tmp_path):
        (tmp_path / "herding.py").write_text("")
        (tmp_path / "_other.py").write_text('__all__ = ["herding"]\n')
        with pytest.raises(ValueError, match=r"importing it hides the function; call the file _herding\.py"):
            packages.homes(tmp_path)

    def test_importing_it_imports_no_method(self):
        code = "import sys, kofn._index; print([m for m in sys.modules if m.startswith('kofn.selection')])"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"

    def test_import_is_light(self):
        heavy = ["scipy.sparse", "sklearn", "numba", "polars", "altair", "torch", "hypothesis", "pandas"]
        code = f"import sys, kofn; kofn.methods(); print([m for m in {heavy} if m in sys.modules])"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"

    def test_small_calls_wait_for_no_compiler(self):
        code = (
            "import sys, kofn; kofn.select([[0.0], [1.0], [2.0]], k=2); kofn.assign([[0.0], [1.0], [2.0]], k=2);"
            "kofn.assign(scores=[[1.0, 2.0]], capacity=1); kofn.allocate([[2.0, 1.0]], budget=1);"
            "kofn.combine([[1.0], [2.0]]); kofn.combine(rankings=[[1, 2]]); print('numba' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"

    def test_a_method_in_the_wrong_home_is_refused(self, monkeypatch):
        import kofn.selection.basics._top_k as module

        @method("assign", cost="", exact="", paper="")
        def stray(scores):
            """Nothing."""

        monkeypatch.setattr(stray.__kofn__.function, "__module__", module.__name__)
        monkeypatch.setattr(module, "stray", stray, raising=False)
        with pytest.raises(ValueError, match="is a method of assign, its home is selection"):
            list(collect.collect_all.__wrapped__())


class TestEntries:
    @pytest.mark.parametrize("entry", ENTRIES)
    def test_says_all_it_should(self, entry):
        assert entry.summary.endswith(".")
        assert len(entry.summary) <= 120
        assert entry.cost
        assert entry.exact
        assert entry.paper
        assert set(entry.accepted) <= VOCABULARY.keys()
        assert set(entry.required) <= set(entry.accepted)
        assert {word for group in entry.needs for word in group} <= set(entry.accepted)
        assert not set(entry.options) & VOCABULARY.keys()

    @pytest.mark.parametrize("entry", ENTRIES)
    def test_its_function_is_documented_and_exported(self, entry):
        function = entry.load()
        text = inspect.getdoc(function)
        for section in ("Args:", "Returns:", "Raises:", ">>> "):
            assert section in text, section
        assert "Cost" in text or "Time" in text
        package = entry.path.split(".")[1]
        assert package in (HOMES[entry.verb], *LOOPS)
        home = __import__(f"kofn.{package}", fromlist=["_"])
        assert entry.name in home.__all__
        assert getattr(home, entry.name) is function
        assert entry.name in dir(home)

    @pytest.mark.parametrize("entry", ENTRIES)
    def test_its_traits_are_laws(self, entry):
        assert set(laws_of(entry)) <= LAWS.keys()
        assert set(entry.traits) <= LAWS.keys()

    def test_an_unknown_trait_is_an_error(self):
        entry = dataclasses.replace(INDEX["select"]["top_k"], traits=("sandwitch",))
        refused(
            lambda: laws_of(entry),
            "method 'top_k' declares the trait 'sandwitch', which is no law; did you mean 'sandwich'?",
        )

    def test_every_law_says_what_it_holds(self):
        for name, law in LAWS.items():
            text = inspect.getdoc(law)
            assert text, name
            assert text.split("\n", 1)[0].endswith((".", ":")), name

    def test_names_are_unique_across_verbs(self):
        names = [name for rows in INDEX.values() for name in rows]
        assert len(names) == len(set(names))


class TestAuto:
    CALLS = (
        ("select", {"scores": [1.0, 2.0], "k": 1}, "top_k"),
        ("select", {"X": X, "k": 2}, "lazy_greedy"),
        ("select", {"similarity": np.eye(3), "k": 2}, "lazy_greedy"),
        ("select", {"X": X, "budget": 2, "costs": [1, 1, 1, 1, 1], "include": [3]}, "lazy_greedy"),
        ("select", {"scores": [1.0, 2.0], "budget": 1, "costs": [1, 1]}, "lazy_greedy"),
        ("assign", {"X": X, "k": 2, "seed": 0}, "fasterpam"),
        ("assign", {"scores": SCORES, "capacity": 3}, "balanced_assignment"),
        ("assign", {"scores": SCORES, "capacity": 3, "per_item": 1}, "balanced_assignment"),
        ("allocate", {"curves": [[2.0, 1.0]], "budget": 1}, "multiple_choice_knapsack"),
        ("combine", {"members": [[1.0], [2.0]]}, "weighted_mean"),
        ("combine", {"rankings": [[1.0, 2.0]]}, "borda"),
    )

    @pytest.mark.parametrize(("verb", "given", "name"), CALLS)
    def test_picks_the_first_that_fits_and_says_so(self, verb, given, name):
        plan = getattr(kofn, verb)(**given)
        assert plan.method == name
        assert plan.info["exact"] == (plan.status == "optimal")
        assert plan.equals(getattr(kofn, verb)(**given, method=name))

    def test_every_row_names_a_method_of_its_verb(self):
        for verb, rows in AUTO.items():
            assert rows
            for name, why in rows:
                assert name in INDEX[verb]
                assert why

    def test_nothing_fits(self):
        refused(
            lambda: kofn.select(scores=[1.0], k=1, weights=[1.0], quotas={"a": 1}, capacity=2),
            "no select method honours all of capacity, k, quotas, scores, weights together: method='lazy_greedy' "
            "does not take capacity; methods that fit this call: none",
        )
        refused(lambda: kofn.assign(), "nothing to assign from: give X or distances or scores")
        words = "X or distances or similarity or scores or rankings"
        refused(lambda: kofn.select(k=2), f"nothing to select from: give {words}")


class TestMisfits:
    CASES: ClassVar = {
        "method": (
            lambda: kofn.select(X, k=2, method="lazy_gredy"),
            "method='lazy_gredy': no such select method; did you mean 'lazy_greedy'?",
        ),
        "method that is no name": (lambda: kofn.select(X, k=2, method=["top_k"]), "no such select method"),
        "method of another verb": (lambda: kofn.select(X, k=2, method="fasterpam"), "no such select method"),
        "argument": (lambda: kofn.select(X, kk=2), "select has no argument 'kk'; did you mean 'k'?"),
        "argument, far from all": (lambda: kofn.select(X, k=2, zzz=1), "select has no argument 'zzz'"),
        "words of other libraries": (
            lambda: kofn.assign(X, n_clusters=2),
            "assign has no argument 'n_clusters'; did you mean 'k'?",
        ),
        "a seed by another name": (lambda: kofn.select(X, k=2, random_state=0), "did you mean 'seed'?"),
        "weights by another name": (lambda: kofn.select(X, k=2, sample_weight=[1] * 5), "did you mean 'weights'?"),
        "two positions": (
            lambda: kofn.select(X, 10),
            "takes one positional argument, X; name the others, for example k=10",
        ),
        "a method of another verb": (lambda: kofn.select(X, k=2, method="ties"), "it is a method of combine"),
        "a stepper": (
            lambda: kofn.select(X, k=2, method="SieveStreaming"),
            "it is a stepper: from kofn.selection.streams import SieveStreaming",
        ),
        "a share that is none": (lambda: kofn.select(X, k="x%"), "or a share of the rows such as '10%'"),
        "a share as a number": (
            lambda: kofn.select(X, k=0.1),
            "k=0.1: give a whole number, or that share of the rows as k='10%'",
        ),
        "a share beyond all": (lambda: kofn.select(X, k="101%"), "a share of the rows from above 0% to 100%"),
        "an option of a method that auto does not pick": (
            lambda: kofn.select(scores=[1.0, 2.0], k=1, n_strata=5),
            "select has no argument 'n_strata'; it is an option of ccs: name it as method=",
        ),
        "flat option of another": (
            lambda: kofn.select(X, k=2, method="farthest_first", tight_bound=True),
            "has no option 'tight_bound'; its options: none; 'tight_bound' belongs to lazy_greedy",
        ),
        "flat option, misspelt": (
            lambda: kofn.combine([[1.0]], base=[0.0], method="ties", densty=0.3),
            "did you mean 'density'?",
        ),
        "given twice": (
            lambda: kofn.select(scores=[1.0], k=1, method="ccs", cutoff=0.1, options={"cutoff": 0.1}),
            "cutoff is given twice: flat and in options; give it once",
        ),
        "k as another word": (lambda: kofn.assign(X, k="many"), "k='many': give a whole number, or 'auto'"),
        "k found by a method that does not": (
            lambda: kofn.assign(X, k="auto", method="fasterpam"),
            "k='auto': method='fasterpam' needs a number; method='pamk' finds k",
        ),
        "a parameter of one of several objectives": (
            lambda: kofn.select(X, k=1, objective="graph_cut + facility_location", lam=0.3),
            "lam could belong to each part of objective='graph_cut + facility_location'; write it there",
        ),
        "argument it does not take": (
            lambda: kofn.select(scores=[1.0, 2.0], k=1, method="ccs", groups=["a", "b"], quotas={"a": 1}),
            "method='ccs' does not take groups, quotas; methods that fit this call: lazy_greedy, naive_greedy, ",
        ),
        "argument it lacks": (lambda: kofn.select(X, method="farthest_first"), "give k (how many) or budget"),
        "required argument": (
            lambda: kofn.select(scores=[1.0], method="top_k"),
            "method='top_k' needs k; methods that fit this call",
        ),
        "one of several": (lambda: kofn.assign(k=2, method="fasterpam"), "needs X or distances"),
        "option": (
            lambda: kofn.select(scores=[1.0, 2.0], k=1, method="ccs", options={"cutof": 0.1}),
            "method='ccs' has no option 'cutof'; its options: n_strata=50, cutoff=0.1; did you mean 'cutoff'?",
        ),
        "an argument among the options": (
            lambda: kofn.select(scores=[1.0, 2.0], k=1, method="ccs", options={"seed": 0}),
            "its options: n_strata=50, cutoff=0.1; 'seed' is an argument of its own: give seed=... beside options",
        ),
        "option of another": (
            lambda: kofn.select(scores=[1.0, 2.0], k=1, method="top_k", options={"beta": 1.0}),
            "method='top_k' has no option 'beta'; its options: none; 'beta' belongs to stochastic_batch",
        ),
        "setting that is ignored": (lambda: kofn.select(scores=[1.0], k=1, method="top_k", seed=-1), "seed=-1"),
        "word of methods": (lambda: kofn.methods("select", given=("score", "kk")), "given='kk' is not an argument"),
        "verb of methods": (lambda: kofn.methods("selekt"), "verb='selekt': one of select, assign"),
        "verb of compare": (lambda: kofn.compare("selekt", X, methods=["top_k"]), "verb='selekt': choose one of"),
        "direct call without input": (
            lambda: kofn.assign.__globals__["dispatch"].methods_of("assign")["fasterpam"].load()(k=2),
            "fasterpam needs X or distances",
        ),
    }

    @pytest.mark.parametrize(("call", "says"), CASES.values(), ids=CASES)
    def test_says_what_to_do(self, call, says):
        refused(call, says)

    def test_a_missing_extra_is_named(self, monkeypatch):
        entry = dataclasses.replace(INDEX["select"]["top_k"], path="kofn_nowhere:top_k", extra="torch")
        monkeypatch.setitem(INDEX["select"], "top_k", entry)
        refused(
            lambda: kofn.select(scores=[1.0], k=1, method="top_k"),
            "method='top_k' needs kofn_nowhere: pip install 'kofn[torch]'",
        )
        monkeypatch.setitem(INDEX["select"], "top_k", dataclasses.replace(entry, extra=None))
        with pytest.raises(ModuleNotFoundError):
            kofn.select(scores=[1.0], k=1, method="top_k")

    def test_a_direct_call_with_a_wrong_keyword_is_python_s_own_error(self):
        from kofn.selection import top_k

        with pytest.raises(TypeError, match="unexpected keyword"):
            top_k([1.0], k=1, kk=2)


class TestFlat:
    def test_options_of_a_named_method(self):
        flat = kofn.select(scores=[1.0, 2.0, 3.0], k=2, method="ccs", n_strata=5, seed=0)
        assert flat.options["n_strata"] == 5
        assert flat.equals(kofn.select(scores=[1.0, 2.0, 3.0], k=2, method="ccs", options={"n_strata": 5}, seed=0))

    def test_options_choose_among_auto_s_rows(self):
        assert kofn.assign(X, k=2, must_link=[(0, 4)], seed=0).method == "constrained_kmeans"
        assert kofn.assign(X, k=2, seed=0).method == "fasterpam"
        assert kofn.assign(X, k="auto").method == "pamk"

    def test_parameters_of_the_objective(self):
        plan = kofn.select(X, k=2, objective="graph_cut", lam=0.3)
        assert plan.objective == "graph_cut(lam=0.3)"
        assert plan.equals(kofn.select(X, k=2, objective="graph_cut(lam=0.3)"))

    def test_parameters_of_the_default_objective(self):
        plan = kofn.select(X, k=2, metric="rbf", bandwidth=1.0)
        assert plan.equals(kofn.select(X, k=2, metric="rbf", objective="facility_location(bandwidth=1.0)"))

    def test_options_of_a_rule_of_one_s_own(self):
        plan = kofn.select(X, k=2, method=lambda X, k, step=1: np.arange(0, k * step, step), step=2)
        assert plan.indices.tolist() == [0, 2]

    @pytest.mark.parametrize("verb", VERBS)
    def test_the_words_show_in_signature_and_help(self, verb):
        function = getattr(kofn, verb)
        parameters = inspect.signature(function).parameters
        for word in collect.words_of(INDEX[verb]):
            assert word in parameters
            assert f"\n    {word}: " in inspect.getdoc(function)
        assert "method" in parameters


class TestMethods:
    def test_all_and_by_verb(self):
        assert len(kofn.methods()) == sum(map(len, INDEX.values()))
        assert all(isinstance(entry, Entry) for entry in kofn.methods())
        assert [entry.name for entry in kofn.methods("combine")] == sorted(INDEX["combine"])

    def test_what_fits(self):
        names = {entry.name for entry in kofn.methods("select", given=("scores", "k"))}
        assert {"top_k", "ccs", "stochastic_batch", "lazy_greedy"} <= names
        assert "farthest_first" not in names
        names = {entry.name for entry in kofn.methods("select", given=("scores", "k", "quotas", "groups", "seed"))}
        assert "top_k" in names
        assert "ccs" not in names
        names = {entry.name for entry in kofn.methods("assign", given=("scores", "capacity"))}
        assert "capped_routing" in names
        assert "fasterpam" not in names
        assert [entry.name for entry in kofn.methods("combine", given=("rankings", "ids"))] == [
            "baldwin",
            "borda",
            "bradley_terry",
            "copeland",
            "dowdall",
            "general_preference",
            "kemeny",
            "minimax",
            "plackett_luce",
            "plurality",
            "ranked_pairs",
            "schulze",
            "threshold_rule",
        ]

    def test_an_entry_tells_its_inputs(self):
        assert INDEX["select"]["top_k"].inputs == "scores, k"
        assert INDEX["assign"]["fasterpam"].inputs == "X or distances, k"


class TestCompare:
    def test_one_row_a_run_under_one_objective(self):
        rng = np.random.default_rng(0)
        points = rng.normal(size=(40, 2))
        frame = kofn.compare(
            "select", points, k=[2, 4], methods=["lazy_greedy", "random_sample", "farthest_first"], seeds=3
        )
        assert isinstance(frame, pl.DataFrame)
        assert frame.columns[:5] == ["method", "k", "seed", "value", "status"]
        assert frame.height == 2 * (1 + 3 + 1)
        assert frame["value"].is_not_nan().all()
        for k in (2, 4):
            rows = frame.filter(pl.col("k") == k)
            assert rows.filter(pl.col("method") == "lazy_greedy")["value"][0] == rows["value"].max()

    def test_values_are_the_objective_s_own(self):
        plan = kofn.select(X, k=2, method="farthest_first")
        frame = kofn.compare("select", X, k=2, methods=["farthest_first"], objective="k_center")
        assert frame["value"][0] == pytest.approx(plan.value)
        greedy = kofn.select(X, k=2)
        assert kofn.compare("select", X, k=2, methods=["lazy_greedy"])["value"][0] == pytest.approx(greedy.value)
        frame = kofn.compare("select", scores=[3.0, 1.0, 2.0], k=2, methods=["top_k", "random_sample"], seeds=[5])
        assert frame["value"][0] == 5.0
        assert frame["seed"].to_list() == [None, 5]

    def test_callables_and_other_verbs(self):
        frame = kofn.compare("select", X, k=1, methods=["lazy_greedy", lambda X, k: [0]])
        assert frame["value"][0] >= frame["value"][1]
        frame = kofn.compare("assign", X, k=2, methods=["fasterpam"], seeds=2)
        assert frame.height == 2
        frame = kofn.compare("allocate", [[2.0, 1.0], [5.0, 1.0]], budget=1, methods=["hull_greedy"])
        assert frame["value"].to_list() == [3.0]

    def test_runs_on_an_engine_have_the_same_answers(self):
        words = {"k": [1, 2], "methods": ["lazy_greedy", "random_sample", lambda X, k: list(range(k))], "seeds": 2}
        here = kofn.compare("select", X, **words)
        for engine in (Local(2), Shuffled(1), "local"):
            there = kofn.compare("select", X, engine=engine, **words)
            assert there.drop("seconds").equals(here.drop("seconds"))
        refused(lambda: kofn.compare("select", X, engine="spork", **words), "choose one of local, ray")


def test_the_overflow_word_of_assign_and_the_options_of_allocate():
    assert kofn.assign(scores=SCORES, capacity=1, overflow="drop").options["overflow"] == "drop"
    plan = kofn.allocate([[1.0, 2.0]], budget=1, sense="max")
    assert (plan.sense, plan.value) == ("max", 2.0)
    assert kofn.allocate([[1.0, 2.0]], mean_budget=1.0).budget == {"budget": 1}


def test_settings_that_a_method_ignores_are_no_error():
    plan = kofn.select(scores=[1.0, 2.0], k=1, seed=1, n_threads=2, progress=False, max_memory="1GB", time_limit=9)
    assert plan.indices.tolist() == [1]


def test_masked_entries_are_refused():
    masked = np.ma.masked_array([1.0, 9.0, 2.0], mask=[0, 1, 0])
    refused(lambda: kofn.select(scores=masked, k=1), "scores is a masked array with 1 masked entries; fill")
    assert kofn.select(scores=np.ma.masked_array([1.0, 9.0, 2.0]), k=1).indices.tolist() == [1]


def test_what_is_falsy_is_no_default():
    refused(lambda: kofn.select(X, k=1, objective=""), "objective=''")
    with pytest.raises(InputError):
        kofn.select(X, k=1, objective=np.eye(5))
    refused(lambda: kofn.select(X, k=1, progress="no"), "progress='no': give True or False")


@pytest.mark.parametrize("engine", ["spork", "", "ray:", "ray://", "ray2", 3, True, object()])
def test_work_runs_on_no_other_engine_than_those_there_are(engine):
    shown = f"engine={engine!r}: choose one of local, ray" if type(engine) is not object else "choose one of local, ray"
    refused(lambda: kofn.select(X, k=1, engine=engine), shown)
    refused(lambda: kofn.combine([X, X], engine=engine), shown)


@pytest.mark.parametrize("engine", ["ray", "ray:auto", "ray:host:6379", "ray://host:10001"])
def test_what_runs_here_only_refuses_another_engine(engine):
    refused(lambda: kofn.combine([X, X], engine=engine), f"engine={engine!r}: tasks read members from files")
    refused(lambda: kofn.assign(X, k=1, method="pam", engine=engine), f"engine={engine!r}: method='pam' runs on this")
    refused(
        lambda: kofn.select(X, k=1, method="lazy_greedy", engine=engine),
        "two_round_farthest_first, two_round_greedy",
    )


def test_the_local_engine_is_everybodys():
    assert kofn.select(X, k=1, engine="local").equals(kofn.select(X, k=1))


class Unreadable:
    def __array__(self, *_, **__):
        raise RuntimeError("no data here")

    def __repr__(self):
        raise RuntimeError("no name either")


@pytest.mark.parametrize("word", ["X", "scores", "k", "costs", "include", "ids", "metric", "budget", "groups", "seed"])
def test_an_object_that_raises_is_refused_by_its_word(word):
    words = {"X": X, "k": 1, **({"budget": 1} if word == "costs" else {}), word: Unreadable()}
    with pytest.raises(InputError, match=rf"^{word}"):
        kofn.select(**words)


def test_a_method_of_no_kind_is_refused():
    refused(lambda: kofn.select(X, k=1, method=np.array(["top_k"])), "give a name or a callable")
    refused(lambda: kofn.select(X, k=1, options=[1]), "options=[1]: give a mapping")
    refused(lambda: kofn.select(X, k=1, method=int), "method=int has no signature to call it by")
    refused(lambda: kofn.select(X, k=1, method=lambda X, /, k: [0]), "takes X by position only")


def test_errors_are_at_the_top():
    assert issubclass(kofn.InputError, kofn.KofnError)
    assert kofn.BrokenPlanError is BrokenPlanError


def test_packages_are_found_without_importing_them():
    code = (
        "import kofn, sys; assert 'numpy' not in sys.modules; kofn.selection.lazy_greedy, kofn.nn, kofn.datasets.load"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert set(kofn._PACKAGES) <= set(dir(kofn))
    assert not set(kofn._PACKAGES) & set(kofn.__all__)


def test_verbs_are_what_the_package_exports():
    for name in ("select", "assign", "allocate", "combine", "methods"):
        assert getattr(kofn, name) is getattr(verbs, name)
    assert set(kofn.__all__) <= set(dir(kofn))
    with pytest.raises(AttributeError, match="nothing_here"):
        kofn.nothing_here  # noqa: B018
    assert issubclass(InputError, ValueError)


def test_a_seed_that_was_drawn_is_short_unless_it_is_a_secret() -> None:
    seeds = [int(kofn.select(X, k=2, method="random_sample").seed or 0) for _ in range(8)]
    assert max(seeds) < 2**32
    assert len(set(seeds)) > 1
    assert max(entropy(None, secret=True) for _ in range(8)) > 2**100
