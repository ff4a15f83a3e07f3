"""Private streaming selection: the loss by exact likelihoods, the noise that is drawn, and the noiseless limit."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import integrate, stats

import kofn
from kofn.core.checks import InfeasibleError, InputError
from kofn.objectives.facility_location import FacilityLocation
from kofn.selection import PrivateStreaming, private_streaming
from kofn.selection.streams._privacy import Accountant, advanced, gumbel_delta, gumbel_rate, laplace_step

Floats = NDArray[np.float64]


def likelihoods(gain: Any, n: int, k: int, threshold: float, scale: float) -> dict[tuple[int, ...], float]:
    """The exact chance of every answer of one Gumbel threshold copy, by the race of exponentials."""
    chance: dict[tuple[int, ...], float] = {}
    for size in range(k + 1):
        for answer in itertools.combinations(range(n), size):
            held: list[int] = []
            x = weight = math.exp(threshold / scale)
            p = 1.0
            for item in range(n):
                if len(held) == k:
                    break
                a = math.exp(gain(item, held) / scale)
                weight += a
                if item in answer:
                    p *= a / weight
                    held.append(item)
                    weight = x
                else:
                    p *= 1 - a / weight
            chance[answer] = p
    return chance


def beyond(p: dict[Any, float], q: dict[Any, float], epsilon: float) -> float:
    """The least delta at which p is within e^epsilon of q."""
    return sum(max(0.0, p[answer] - math.exp(epsilon) * q[answer]) for answer in p)


def cover(table: Floats) -> Any:
    """Gains of the facility location of these persons (rows) and elements (columns)."""

    def gain(item: int, held: list[int]) -> float:
        best = table[:, held].max(axis=1) if held else np.zeros(len(table))
        return float(np.maximum(table[:, item] - best, 0).sum())

    return gain


@pytest.mark.parametrize("seed", range(25))
def test_gumbel_copies_keep_their_delta(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, k, scale = 8, int(rng.integers(1, 5)), float(rng.uniform(0.5, 6))
    table = rng.random((int(rng.integers(1, 6)), n)) ** rng.choice([0.2, 1, 5])
    one = rng.choice([0.0, 1.0], n) if seed % 2 else rng.random(n)
    threshold = float(rng.uniform(-2, 3))
    without = likelihoods(cover(table), n, k, threshold, scale)
    within = likelihoods(cover(np.vstack([table, one])), n, k, threshold, scale)
    assert math.isclose(sum(without.values()), 1)
    assert math.isclose(sum(within.values()), 1)
    rate = 1 / scale
    # With the person in the data, nothing is more than e^rate likelier.
    assert max(within[a] / without[a] for a in within) <= math.exp(rate) * (1 + 1e-9)
    assert max(without[a] / within[a] for a in within) <= math.exp(2 * k * rate) * (1 + 1e-9)
    for epsilon in rate * np.array([1.0, 1.2, 1.5, 2.0, 3.0, 4.0]):
        assert beyond(without, within, epsilon) <= gumbel_delta(epsilon, rate, 1) + 1e-12
    for s in (0.3, 1.0, 0.9 / math.expm1(rate)):
        if s * math.expm1(rate) < 1:
            moment = sum(p * (p / within[a]) ** s for a, p in without.items())
            assert moment <= math.exp(-s * rate) / (1 - s * math.expm1(rate)) * (1 + 1e-9)


def test_the_bound_is_nearly_met_by_a_bad_stream() -> None:
    # A person wants one element in ten, all alike, and each is one of many copies: the worst case that the proof names.
    rate, parts, segments = 0.25, 30, 40
    share, rng = 0.1, np.random.default_rng(0)
    ratios = []
    for _ in range(1500):
        left, log = rate, 0.0
        for _ in range(segments):
            total = more = 1.0
            for _ in range(parts):
                wants = rng.random() < share
                a, b = 0.5, 0.5 * math.exp(left if wants else 0.0)
                hit = rng.random() < a / (total + a)
                log += (
                    math.log(a / (total + a)) - math.log(b / (more + b))
                    if hit
                    else (math.log(total / (total + a)) - math.log(more / (more + b)))
                )
                total, more = total + a, more + b
                if hit:
                    left = 0.0 if wants else left
                    break
        ratios.append(log)
    found = np.array(ratios)
    for epsilon in (0.5, 0.75, 1.0):
        measured = float(np.maximum(0, 1 - np.exp(epsilon - found)).mean())
        # Far from nothing, and below what is promised (the margin is that of 1,500 draws).
        promised = gumbel_delta(epsilon, rate, 1)
        assert promised / 30 < measured < promised + 4 * math.sqrt(promised / 1500)


def test_the_copies_draw_the_gumbel_noise_that_is_accounted_for() -> None:
    rng = np.random.default_rng(5)
    people, X = rng.random((6, 1)), rng.random((4, 1))
    options: dict[str, Any] = {"k": 2, "epsilon": 4.0, "delta": 0.01, "reach": 1.0, "opt_range": (3.0, 3.0)}
    first = PrivateStreaming(people, **options, seed=0)
    scale = first.accountant.gain_scale
    assert scale == first.accountant.threshold_scale > 0
    table = np.clip(1 - np.abs(people - X.T), 0, 1)
    exact = likelihoods(cover(table), 4, 2, 3.0 / 4, scale)
    counts = dict.fromkeys(exact, 0)
    draws = 2000
    for seed in range(draws):
        stream = PrivateStreaming(people, **options, seed=seed)
        stream.insert(range(4), X)
        counts[tuple(stream._picks[0])] += 1
    likely = [answer for answer in exact if exact[answer] * draws >= 5]
    rare = 1 - sum(exact[answer] for answer in likely)
    observed = [counts[answer] for answer in likely]
    expected = [exact[answer] * draws for answer in likely]
    if rare * draws >= 5:
        observed.append(draws - sum(observed))
        expected.append(rare * draws)
    total = sum(observed)
    assert stats.chisquare(observed, np.array(expected) * total / sum(expected)).pvalue > 1e-6


def laplace_run(gains: Floats, threshold: float, gain_scale: float, threshold_scale: float) -> Floats:
    """(n + 1,) chance that each element (or none) is accepted first, by integration over the threshold's noise."""
    out = []
    for first in range(len(gains) + 1):

        def joint(noise: float, first: int = first) -> float:
            tail = stats.laplace.sf(threshold + noise - gains, scale=gain_scale)
            before = float(np.prod(1 - tail[:first]))
            return (
                before
                * (float(tail[first]) if first < len(gains) else 1.0)
                * float(stats.laplace.pdf(noise, scale=threshold_scale))
            )

        out.append(sum(integrate.quad(joint, *ends, limit=60)[0] for ends in ((-80, -5), (-5, 0), (0, 5), (5, 80))))
    return np.array(out)


@pytest.mark.parametrize("one_sided", [True, False])
def test_sparse_vector_runs_keep_their_epsilon(one_sided: bool) -> None:
    rng = np.random.default_rng(1)
    books = Accountant(1.2, 0.0, 1, 1, "laplace", 1.0, True, "withdraw" if one_sided else "replace", 1, 0.5)
    step = books.stream_epsilon
    assert books.gain_scale == pytest.approx((1 if one_sided else 2) / (step / 2))
    assert books.threshold_scale == pytest.approx(1 / (step / 2))
    worst = 0.0
    for _ in range(4):
        gains = rng.uniform(0, 3, 3)
        shift = rng.choice([0.0, 1.0], 3) if one_sided else rng.choice([-1.0, 0.0, 1.0], 3)
        a = laplace_run(gains, 1.5, books.gain_scale, books.threshold_scale)
        b = laplace_run(gains + shift, 1.5, books.gain_scale, books.threshold_scale)
        assert a.sum() == pytest.approx(1, abs=1e-6)
        worst = max(worst, float(np.abs(np.log(a / b)).max()))
    assert 0.4 * step < worst <= step * (1 + 1e-6)


@pytest.mark.parametrize("noise", ["gumbel", "laplace"])
@pytest.mark.parametrize("neighbours", ["withdraw", "replace"])
@pytest.mark.parametrize("delta", [0.0, 1e-6])
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
def test_the_parts_compose_to_the_budget(noise: str, neighbours: str, delta: float, epsilon: float) -> None:
    books = Accountant(epsilon, delta, 5, 7, noise, 2.0, True, neighbours, 3, 0.25)
    assert books.spent(False, 0) == (0.0, 0.0)
    spent = books.spent(True, 3)
    assert spent[0] == pytest.approx(epsilon)
    assert spent[1] == pytest.approx(delta)
    half = noise == "gumbel" and neighbours == "replace"
    within = epsilon / 2 if half else epsilon
    chance = delta / (1 + math.exp(epsilon / 2)) if half else delta
    assert books.stream_epsilon + 3 * books.release_epsilon == pytest.approx(within)
    one_sided = half or neighbours == "withdraw"
    assert books.release_scale == pytest.approx((1 if one_sided else 2) * 2.0 / books.release_epsilon)
    if noise == "gumbel":
        rate = 2.0 / books.gain_scale
        by_moments = gumbel_delta(books.stream_epsilon, rate, 7) <= chance
        assert by_moments or 2 * 5 * 7 * rate <= books.stream_epsilon * (1 + 1e-12)
    else:
        step = 2 * 2.0 / books.threshold_scale
        assert advanced(step, 35, chance) <= books.stream_epsilon * (1 + 1e-12)
        assert step >= books.stream_epsilon / 35
    text = json.dumps(books.ledger(True, 3))
    assert "copies" in text
    assert "composition" in text


def test_general_functions_need_twice_the_noise() -> None:
    general = Accountant(1.0, 0.0, 1, 1, "laplace", 1.0, False)
    special = Accountant(1.0, 0.0, 1, 1, "laplace", 1.0, True)
    assert general.threshold_scale == 2 * special.threshold_scale
    assert general.gain_scale == 4 * special.gain_scale
    assert general.release_scale == 2 * special.release_scale


def test_advanced_composition_is_the_published_formula() -> None:
    step, runs, delta = 0.01, 500, 1e-6
    published = runs * step * math.expm1(step) / (math.exp(step) + 1) + step * math.sqrt(2 * runs * math.log(1 / delta))
    assert advanced(step, runs, delta) == pytest.approx(published)
    assert published < runs * step
    assert advanced(0.5, 2, delta) == 1.0
    assert laplace_step(1.0, 0.0, 40) == pytest.approx(1 / 40)
    assert gumbel_rate(3.0, 0.0, 4, 5) == pytest.approx(3 / 40)


def sieve(table: Floats, k: int, guess: float) -> list[int]:
    """Plain threshold streaming, written again."""
    held: list[int] = []
    gain = cover(table)
    for item in range(table.shape[1]):
        if len(held) < k and gain(item, held) >= guess / (2 * k):
            held.append(item)
    return held


@pytest.mark.parametrize("noise", ["gumbel", "laplace"])
@pytest.mark.parametrize("seed", range(5))
def test_without_noise_it_is_sieve_streaming(noise: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, people = rng.random((12, 2)), rng.random((30, 2))
    plan = private_streaming(X, k=3, users=people, epsilon=math.inf, reach=0.8, noise=noise, theta=0.1, seed=seed)
    table = np.clip(1 - np.linalg.norm(people[:, None] - X[None], axis=2) / 0.8, 0, 1)
    guesses = 30 / 6 * 1.1 ** np.arange(math.floor(math.log(6) / math.log(1.1)) + 1)
    runs = [sieve(table, 3, guess) for guess in guesses]
    worth = [table[:, run].max(axis=1).sum() if run else 0.0 for run in runs]
    best = runs[int(np.argmax(worth))]
    kept = plan.indices[: 3 - plan.info["filled"]].tolist()
    assert kept == best
    optimum = max(table[:, picks].max(axis=1).sum() for picks in itertools.combinations(range(12), 3))
    value = table[:, plan.indices].max(axis=1).sum()
    assert plan.guarantee == pytest.approx(1 / 2.2)
    assert plan.info["additive_loss"] == 0
    assert value >= optimum * plan.guarantee


def test_the_additive_loss_holds() -> None:
    rng = np.random.default_rng(3)
    people, X = rng.random((20000, 2)), rng.random((40, 2))
    table = np.clip(1 - np.linalg.norm(people[:, None] - X[None], axis=2) / 0.3, 0, 1)
    greedy: list[int] = []
    for _ in range(3):
        greedy.append(int(np.argmax([table[:, [*greedy, item]].max(axis=1).sum() for item in range(40)])))
    # The optimum is at least greedy's value.
    best = table[:, greedy].max(axis=1).sum()
    for seed in range(10):
        plan = private_streaming(X, k=3, users=people, epsilon=3.0, reach=0.3, seed=seed)
        value = table[:, plan.indices].max(axis=1).sum()
        promised = plan.guarantee * best - plan.info["additive_loss"]
        assert promised > 0
        assert value >= promised


def test_the_plan_tells_nothing_of_the_users_but_the_picks() -> None:
    rng = np.random.default_rng(0)
    people, X = rng.random((50, 2)), rng.random((10, 2))
    plan = kofn.select(X, k=2, method="private_streaming", options={"users": people, "epsilon": 1.0}, seed=3)
    assert math.isnan(plan.value)
    assert np.isnan(plan.gains).all()
    assert plan.seed is None
    assert plan.bound is None
    assert plan.options["users"] == "withheld"
    assert plan.objective == ""
    other = kofn.select(X, k=2, method="private_streaming", options={"users": people + 1, "epsilon": 1.0}, seed=3)
    assert plan.problem == other.problem
    assert plan.info["privacy"] == other.info["privacy"]


def test_stepper_restores_bit_for_bit_and_counts_releases() -> None:
    rng = np.random.default_rng(2)
    people, X = rng.random((300, 2)), rng.random((30, 2))

    def make() -> PrivateStreaming:
        return PrivateStreaming(people, k=4, epsilon=2.0, delta=1e-5, reach=1.0, releases=2, seed=9)

    one, two = make(), make()
    assert one.spent == (0.0, 0.0)
    one.insert([f"a{i}" for i in range(10)], X[:10])
    assert one.spent == (pytest.approx(1.0), 1e-5)
    early = one.plan
    assert one.plan.equals(early)
    assert one.spent[0] == pytest.approx(1.5)
    two.load_state_dict(one.state_dict())
    for stream in (one, two):
        stream.insert([f"b{i}" for i in range(10)], X[10:20])
        stream.insert([f"c{i}" for i in range(10)], X[20:])
    assert one.plan.equals(two.plan)
    assert one.spent == two.spent == (pytest.approx(2.0), 1e-5)
    assert one.oracle_calls == two.oracle_calls
    assert (one.accepted == two.accepted).all()
    chosen = one._chosen
    one.insert(["z"], X[:1])
    assert one.plan.n == 31
    assert one.spent[0] == pytest.approx(2.0)
    assert one._chosen is not None
    assert chosen is not None
    assert one._chosen[0] == chosen[0]
    assert one.value(one.plan.indices) > 0
    whole = make()
    whole.insert([f"a{i}" for i in range(10)], X[:10])
    assert whole.plan.equals(early)
    with pytest.raises(InputError, match="state was made with k=4, here it is 3"):
        PrivateStreaming(people, k=3, epsilon=2.0, reach=1.0).load_state_dict(one.state_dict())


def test_a_stream_that_ends_early_gives_what_there_was() -> None:
    stream = PrivateStreaming(np.zeros((5, 1)), k=4, epsilon=1.0, reach=1.0, seed=0)
    with pytest.raises(InputError, match="nothing was inserted"):
        _ = stream.plan
    stream.insert([7, 5], [[0.0], [1.0]])
    plan = stream.plan
    assert sorted(plan.keys(plan.indices).tolist()) == [5, 7]


def test_an_own_objective_without_noise_is_sieve_too() -> None:
    rng = np.random.default_rng(4)
    S = rng.random((9, 9))
    S = (S + S.T) / 2
    options: dict[str, Any] = {"k": 3, "sensitivity": 1.0, "opt_range": (2.0, 9.0), "seed": 0}
    stream = PrivateStreaming(objective=FacilityLocation(similarity=S), epsilon=math.inf, **options)
    stream.insert(range(9))
    runs = [sieve(S, 3, 2.0 * 1.25**step) for step in range(7)]
    best = max(runs, key=lambda run: S[:, run].max(axis=1).sum() if run else 0.0)
    kept = stream.plan.indices[: len(best)].tolist()
    assert kept == best
    assert stream.plan.info["filled"] == 3 - len(best)
    noisy = PrivateStreaming(objective=FacilityLocation(similarity=S), epsilon=1.0, **options)
    assert noisy.accountant.noise == "laplace"
    assert not noisy.accountant.decomposable
    noisy.insert(range(4))
    again = PrivateStreaming(objective=FacilityLocation(similarity=S), epsilon=1.0, **options)
    again.load_state_dict(noisy.state_dict())
    for stream in (noisy, again):
        stream.insert(range(4, 9))
    assert noisy.plan.equals(again.plan)


X, PEOPLE = np.eye(3), np.ones((4, 3))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epsilon": 0}, "epsilon=0"),
        ({"epsilon": -1.0}, "epsilon=-1"),
        ({"epsilon": math.nan}, "epsilon=nan"),
        ({"epsilon": "1"}, "epsilon='1'"),
        ({"delta": 1.0}, "delta=1"),
        ({"delta": -0.1}, "delta=-0.1"),
        ({"users": np.ones((4, 2))}, "X has 3 columns, the users have 2"),
        ({"users": [[np.nan, 0, 0]]}, "users at row 0"),
        ({"reach": 0.0}, "reach=0"),
        ({"theta": 0}, "theta=0"),
        ({"noise": "gauss"}, "noise='gauss'"),
        ({"neighbours": "all"}, "neighbours='all'"),
        ({"opt_range": (3, 1)}, r"opt_range=\(3, 1\)"),
        ({"opt_range": 3}, "opt_range=3"),
        ({"release_share": 1.0}, "release_share=1"),
    ],
)
def test_refused(change: dict[str, Any], words: str) -> None:
    call: dict[str, Any] = {"k": 1, "users": PEOPLE, "epsilon": 1.0, **change}
    with pytest.raises(InputError, match=words):
        private_streaming(X, **call)


def test_refused_by_the_stepper() -> None:
    with pytest.raises(InfeasibleError, match="k=4 of 3 items"):
        private_streaming(X, k=4, users=PEOPLE, epsilon=1.0)
    with pytest.raises(InputError, match="needs users"):
        kofn.select(X, k=1, method="private_streaming", options={"epsilon": 1.0})
    stream = PrivateStreaming(PEOPLE, k=1, epsilon=1.0, reach=1.0)
    stream.insert(["a"], X[:1])
    for ids, rows, words in (
        (["a"], X[:1], "ids names 'a', which is there already"),
        (["b", "b"], X[:2], "b"),
        (["b"], X[:2], "2 rows for 1 ids"),
        (["b"], X[:1, :2], "X has 2 columns, the users have 3"),
        (["b"], None, "X is missing"),
    ):
        with pytest.raises(InputError, match=words):
            stream.insert(ids, rows)
    assert stream.seen == 1
    with pytest.raises(InputError, match="reach is missing"):
        PrivateStreaming(PEOPLE, k=1, epsilon=1.0)
    with pytest.raises(InputError, match="one of the two"):
        PrivateStreaming(k=1, epsilon=1.0)
    own = FacilityLocation(similarity=np.eye(3))
    with pytest.raises(InputError, match="sensitivity is missing"):
        PrivateStreaming(objective=own, k=1, epsilon=1.0)
    with pytest.raises(InputError, match="opt_range is missing"):
        PrivateStreaming(objective=own, k=1, epsilon=1.0, sensitivity=1.0)
    with pytest.raises(InputError, match="positions in its pool"):
        PrivateStreaming(objective=own, k=1, epsilon=1.0, sensitivity=1.0, opt_range=(1, 3)).insert(["x"])
    with pytest.raises(InputError, match="lacks gains"):
        PrivateStreaming(objective=object(), k=1, epsilon=1.0, sensitivity=1.0, opt_range=(1, 3))  # type: ignore[arg-type]
