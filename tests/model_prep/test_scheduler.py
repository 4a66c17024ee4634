# SPDX-License-Identifier: Apache-2.0
"""Threads, torch's own threads, and a Dask cluster give the same bits; bad addresses are named."""

import pickle
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from digits_network import Ready, ready_for

from nuq.formats.errors import UserError, run_cli
from nuq.model_prep.allocate import scheduler, search
from nuq.model_prep.allocate.measure import Measure, measuring
from nuq.model_prep.allocate.scheduler import Dask, Threads
from nuq.model_prep.graph import Layer
from nuq.model_prep.quantize import calibrate
from nuq.model_prep.quantize.fake_quant import FakeQuantized


@pytest.fixture(scope="module")
def ready() -> Ready:
    return ready_for(number=900, few=600)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


def found_by(ready: Ready, pool: scheduler.Pool) -> search.SearchResult:
    measure = Measure(ready.sample, pool, "sqnr")
    result = search.coordinate(ready.problem, measure, 15.0)
    pool.close()
    return result


def parts(ready: Ready) -> tuple[Any, list[np.ndarray], frozenset[str]]:
    names = frozenset(layer.name for layer in ready.problem.graph.layers[:-1])
    return ready.sample.network, list(calibrate.batches(ready.sample.pixels)), names


@pytest.fixture(scope="module")
def by_two_threads(ready: Ready) -> search.SearchResult:
    return found_by(ready, Threads(*parts(ready), workers=2))


def test_workers_do_not_matter(ready: Ready, by_two_threads: search.SearchResult) -> None:
    before = torch.get_num_threads()
    assert found_by(ready, Threads(*parts(ready), workers=3)) == by_two_threads
    assert torch.get_num_threads() == before


def test_dask_gives_the_same_result_and_remembers_few_choices(
    ready: Ready, client: Any, by_two_threads: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, bases = [], set()
    known = scheduler._known

    def counted(pool: str, sent: Any) -> Any:
        choice = known(pool, sent)
        sizes.append(scheduler._LATEST[pool].cache_info().currsize)
        bases.add(sent.number)
        return choice

    monkeypatch.setattr(scheduler, "_known", counted)
    pool = Dask(client, *parts(ready))
    assert found_by(ready, pool) == by_two_threads
    assert len(bases) > 10
    assert max(sizes) <= scheduler._REMEMBERED
    assert pool._sent.cache_info().currsize <= scheduler._REMEMBERED
    assert not scheduler._RUNS  # close has freed the workers' caches
    assert not scheduler._LATEST


def test_a_worker_knows_an_accepted_candidate(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str] = []
    raw = FakeQuantized.raw

    def counted(network: FakeQuantized, layer: Layer, *rest: Any) -> torch.Tensor:
        computed.append(layer.name)
        return raw(network, layer, *rest)

    monkeypatch.setattr(FakeQuantized, "raw", counted)
    network, batches, keep = parts(ready)
    wide, narrow = (ready.problem.uniform(bits) for bits in (4, 3))
    widths = [wide, (narrow[0], *wide[1:]), (narrow[0], *wide[1:-1], narrow[-1])]
    start, accepted, next_one = (ready.problem.choice(one) for one in widths)

    def task(base: int, number: int, choices: tuple[Any, Any]) -> np.ndarray:
        sent = [pickle.loads(pickle.dumps(scheduler._slim(one))) for one in choices]  # a copy each
        numbered = map(scheduler._Sent, (base, number), sent)
        return scheduler._task("pool", 0, network, batches[0], keep, *numbered)

    task(0, 0, (start, start))
    task(0, 1, (start, accepted))
    computed.clear()
    got = task(1, 2, (accepted, next_one))
    *_, narrowed, reader = (layer.name for layer in network.graph.layers)
    fracs = {one.quantizers[narrowed].frac for one in (accepted, next_one)}
    # what reads the narrowed layer, and itself only where its integers have another F
    assert computed == [narrowed, reader][2 - len(fracs) :]
    again = task(7, 8, (accepted, next_one))  # numbers that were forgotten
    assert np.array_equal(got, again)
    scheduler._forget("pool")
    assert not scheduler._RUNS
    assert not scheduler._LATEST
    plain = scheduler.BatchRun(network, batches[0], keep).outputs(None, next_one)
    assert np.array_equal(got, plain)


@pytest.mark.slow()
def test_a_cluster_of_processes_at_its_address(
    ready: Ready, by_two_threads: search.SearchResult
) -> None:
    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        assert cluster.scheduler_address.startswith("tcp://")
        with measuring(*ready, "sqnr", cluster.scheduler_address) as measure:
            there = search.coordinate(ready.problem, measure, 15.0)
        with distributed.Client(cluster, set_as_default=False) as client:
            left = client.run(lambda: len(scheduler._RUNS))
    assert list(left.values()) == [0, 0]
    assert there == by_two_threads
    with measuring(*ready, "sqnr") as measure:
        assert measure.score(ready.problem.choice(tuple(there.widths.values())))[0] == there.score


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense"])
def test_nobody_answers(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="needs the extra dask")
    monkeypatch.setattr(scheduler, "_CONNECT_SECONDS", 1)
    with pytest.raises(UserError, match=f"^SCHEDULER must be the address of .*, not {address}"):
        scheduler.connect(address)


def test_dask_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    from nuq.formats.commands import main

    monkeypatch.setitem(sys.modules, "distributed", None)
    options = ["allocate", "NET=digits", f"OUT={tmp_path}", "SCHEDULER=tcp://a:1"]
    assert run_cli(main, options) == 2
    text = capsys.readouterr().err
    assert "SCHEDULER=tcp://a:1 needs the package distributed; pip install distributed" in text
    assert not list(tmp_path.iterdir())


def test_a_failing_task_is_reported(ready: Ready) -> None:
    network, pixels, keep = parts(ready)
    pool = Threads(network, [*pixels, np.zeros((1, 2, 3), np.uint8)], keep)
    base = ready.problem.choice(ready.problem.uniform(3))
    with pytest.raises((IndexError, ValueError, RuntimeError)):
        pool.run(base, base, range(len(pixels) + 1), lambda number, part: True)
    pool.close()
