# SPDX-License-Identifier: Apache-2.0
"""Batches side by side: in order, on one torch thread each, and stopped with their reader."""

import threading
import time

import pytest
import torch

from nuq.model_prep import parallel


@pytest.mark.parametrize("cores", [1, 3])
def test_results_come_in_order(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    monkeypatch.setattr(parallel, "CORES", cores)
    threads = set()

    def work(number: int) -> tuple[int, int]:
        threads.add(threading.get_ident())
        time.sleep(0.001 * (5 - number % 5))  # later items are done sooner
        return number, torch.get_num_threads()

    assert list(parallel.ordered(work, range(20))) == [(number, 1) for number in range(20)]
    assert len(threads) == cores


def test_an_error_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "CORES", 2)
    started = []

    def work(number: int) -> int:
        started.append(number)
        return 1 // (2 - number)

    with pytest.raises(ZeroDivisionError):
        list(parallel.ordered(work, range(1000)))
    assert len(started) < 10


def test_only_so_many_items_are_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "CORES", 2)
    taken = []

    def items() -> object:
        for number in range(100):
            taken.append(number)
            yield number

    results = parallel.ordered(lambda number: number, items())  # type: ignore[arg-type]
    assert next(results) == 0
    assert len(taken) <= 4
    results.close()  # type: ignore[attr-defined]
