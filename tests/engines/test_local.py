"""Tasks on this machine: results in order, few at a time, and stopped between two of them."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from refusals import refused

from kofn.core.checks import InputError
from kofn.engines.base import Engine, stopping
from kofn.engines.local import Local
from kofn.engines.opening import opened
from kofn.engines.threads import cores
from kofn.laws.engines import Shuffled

ENGINES = [Local(1), Local(2), Local(5), Shuffled(3)]


def slow_first(item: int, added: int) -> int:
    time.sleep(0.02 if item % 3 == 0 else 0.0)
    return item + added


@pytest.mark.parametrize("engine", ENGINES)
def test_results_come_in_the_order_of_the_items(engine: Engine) -> None:
    assert isinstance(engine, Engine)
    results = engine.map(slow_first, range(17), shared=(engine.share(100),))
    assert list(results) == list(range(100, 117))
    assert engine.facts()["tasks"] >= 17
    engine.close()


def test_processes_of_their_own_do_the_same() -> None:
    engine = Local(1, processes=True)
    assert list(engine.map(pow, [3, 4], shared=(2,))) == [9, 16]


@pytest.mark.parametrize("engine", [Local(1), Local(2), Shuffled(0)])
def test_items_are_asked_for_as_results_are_taken(engine: Engine) -> None:
    asked = []

    def items() -> Any:
        for item in range(1000):
            asked.append(item)
            yield item

    results = engine.map(abs, items())
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(asked) <= 3 + 2 * engine.workers
    results.close()  # type: ignore[attr-defined]
    assert len(asked) <= 3 + 2 * engine.workers


@pytest.mark.parametrize("engine", ENGINES)
def test_an_error_of_a_task_is_the_error_of_the_run(engine: Engine) -> None:
    def fails(item: int) -> int:
        if item == 3:
            raise InputError("row 7 is no number")
        return item

    with pytest.raises(InputError, match="row 7 is no number"):
        list(engine.map(fails, range(9)))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_work_ends_early_once_it_is_stopped_and_tasks_may_ask(workers: int) -> None:
    stop = threading.Event()

    def work(item: int) -> bool:
        if item == 2:
            stop.set()
        return stopping()

    results = list(Local(workers).map(work, range(100), stopped=stop.is_set))
    assert len(results) < 100
    assert results[2] is True
    assert not stopping()


@pytest.mark.parametrize("engine", [Local(1), Local(2), Shuffled(0)])
def test_a_task_takes_one_thread(engine: Engine) -> None:
    assert set(engine.map(lambda _item: cores(), range(4))) == {1}


def test_a_word_names_an_engine() -> None:
    for word in (None, "local"):
        with opened(word, 3) as engine:
            assert (engine.name, engine.workers) == ("local", 3)
    own = Shuffled()
    with opened(own) as engine:
        assert engine is own


def test_ray_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)

    def ask() -> None:
        with opened("ray"):
            pass

    refused(ask, "engine='ray' needs ray: pip install 'kofn[ray]'")
