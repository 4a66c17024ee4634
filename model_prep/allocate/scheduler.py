# SPDX-License-Identifier: Apache-2.0
"""Who computes a candidate: threads of this process, or the workers of a Dask cluster.

Both take batches of images as tasks, each on one torch thread, so that results depend neither on
the number of cores nor on the cluster. SCHEDULER=tcp://host:port names a cluster.
"""

import itertools
import os
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch

from formats.errors import UserError
from formats.quantizer import Quantizer
from model_prep.allocate.cache import BatchRun, Choice
from model_prep.quantize.fake_quant import FakeQuantized

_CONNECT_SECONDS = 10
_REMEMBERED = 3  # choices: a base, a candidate, and one of a task that was not stopped in time
_AHEAD = 2  # tasks given out beyond the workers, so that none waits for the next one

Consume = Callable[[int, np.ndarray], bool]


class Pool(Protocol):
    """Runs candidates on all batches of images."""

    def run(
        self, base: Choice | None, choice: Choice, order: Sequence[int], consume: Consume
    ) -> None:
        """Hand the outputs of every batch to `consume`, in `order`, until it returns False.

        Args:
            base: what caches are kept for; None: compute everything.
            choice: the candidate.
            order: batch numbers.
            consume: takes a batch's number and its outputs float32 [N, classes].
        """

    def close(self) -> None:
        """Free what the pool holds."""


def _stream(
    submit: Callable[[int], Any], result: Callable[[Any], np.ndarray], drop: Callable[[Any], None],
    order: Sequence[int], window: int, consume: Consume,
) -> None:  # fmt: skip
    """Keep `window` tasks under way, consume their results in order, drop the rest on a stop."""
    numbers = iter(order)
    tasks = [(number, submit(number)) for number in itertools.islice(numbers, window)]
    try:
        while tasks:
            number, task = tasks.pop(0)
            going = consume(number, result(task))
            if not going:
                return
            tasks += [(ahead, submit(ahead)) for ahead in itertools.islice(numbers, 1)]
    finally:
        for _, task in tasks:
            drop(task)


class Threads:
    """The cores of this machine: a thread a core, one torch thread each.

    Intra-operator threads instead (`workers=1` leaves torch all cores) wait for each other at the
    end of every operation.
    """

    def __init__(
        self, network: FakeQuantized, batches: Sequence[np.ndarray], keep: frozenset[str],
        workers: int | None = None,
    ) -> None:  # fmt: skip
        """`batches` are uint8 [N, C, H, W]; `keep` as in `cache.layers_to_keep`."""
        cores = os.cpu_count() or 1
        self._workers = workers or cores
        self._runs = [BatchRun(network, pixels, keep) for pixels in batches]
        each = max(1, cores // self._workers)
        self._before = torch.get_num_threads()
        torch.set_num_threads(each)
        self._executor = ThreadPoolExecutor(
            self._workers, initializer=torch.set_num_threads, initargs=(each,)
        )

    @property
    def kept_bytes(self) -> int:
        """Bytes in all caches."""
        return sum(run.kept_bytes for run in self._runs)

    def run(
        self, base: Choice | None, choice: Choice, order: Sequence[int], consume: Consume
    ) -> None:
        """See `Pool.run`."""

        def submit(number: int) -> Future[np.ndarray]:
            run = self._runs[number]
            if base is None:
                return self._executor.submit(run.plain, choice)
            return self._executor.submit(run.logits, base, choice)

        def drop(task: Future[np.ndarray]) -> None:
            if not task.cancel():
                wait([task], return_when=FIRST_EXCEPTION)  # a batch serves one task at a time

        _stream(submit, Future.result, drop, order, self._workers + _AHEAD, consume)

    def close(self) -> None:
        """See `Pool.close`."""
        self._executor.shutdown()
        self._runs = []
        torch.set_num_threads(self._before)


# On a Dask worker: caches by (pool, batch), made when a task first needs them, so that a batch
# which moves to another worker only costs its cache; by pool and number the latest choices, so that
# all tasks have the same object for a base, and a base that was a candidate is known as such.
_RUNS: dict[tuple[str, int], tuple[threading.Lock, BatchRun]] = {}
_RUNS_LOCK = threading.Lock()
_LATEST: dict[str, OrderedDict[int, Choice]] = {}
_Numbered = tuple[int, Choice]  # identity does not travel to a worker


def _known(pool: str, sent: _Numbered) -> Choice:
    """The choice with this number that a task of the pool brought first, while it is remembered.

    A forgotten one costs a cache what it could have reused, and changes no result.
    """
    latest = _LATEST.setdefault(pool, OrderedDict())
    choice = latest.setdefault(*sent)
    latest.move_to_end(sent[0])
    while len(latest) > _REMEMBERED:
        latest.popitem(last=False)
    return choice


def _task(
    pool: str, number: int, network: FakeQuantized, pixels: np.ndarray, keep: frozenset[str],
    base: _Numbered | None, choice: _Numbered,
) -> np.ndarray:  # fmt: skip
    """One batch of one candidate, on a worker."""
    torch.set_num_threads(1)
    with _RUNS_LOCK:
        if (pool, number) not in _RUNS:
            _RUNS[pool, number] = (threading.Lock(), BatchRun(network, pixels, keep))
        lock, run = _RUNS[pool, number]
        start = None if base is None else _known(pool, base)
        candidate = _known(pool, choice)
    with lock:
        return run.plain(candidate) if start is None else run.logits(start, candidate)


def _forget(pool: str) -> None:
    """Free a pool's caches on a worker."""
    with _RUNS_LOCK:
        _LATEST.pop(pool, None)
        for key in [key for key in _RUNS if key[0] == pool]:
            _RUNS.pop(key, None)


def _slim(choice: Choice) -> Choice:
    """The same choice without the tables that a quantizer computes when it is used."""
    slim: dict[int, Quantizer] = {}
    for quantizer in choice.quantizers.values():
        slim.setdefault(id(quantizer), replace(quantizer))
    return replace(choice, quantizers={n: slim[id(q)] for n, q in choice.quantizers.items()})


def connect(address: str) -> Any:
    """A client of the Dask cluster at `address`.

    Raises:
        UserError: distributed is not installed, or nobody answers.
    """
    try:
        from distributed import Client
    except ImportError:
        raise UserError(
            f"SCHEDULER={address} needs the package distributed; pip install distributed"
        ) from None
    try:
        return Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError, TimeoutError) as error:
        raise UserError(
            f"SCHEDULER must be the address of a running Dask scheduler, not {address} "
            f"({type(error).__name__}); start dask scheduler and dask worker"
        ) from None


class Dask:
    """The workers of a cluster: network and images are sent once, then candidates batch by batch.

    Workers need this project's modules and the same versions of numpy and torch.
    """

    def __init__(
        self, client: Any, network: FakeQuantized, batches: Sequence[np.ndarray],
        keep: frozenset[str],
    ) -> None:  # fmt: skip
        """`client` is a distributed.Client; the others as for `Threads`."""
        self._client, self._keep, self._name = client, keep, uuid.uuid4().hex
        info = client.scheduler_info(n_workers=-1)["workers"]
        if not info:
            raise UserError(
                "SCHEDULER must have workers, not none; start dask worker with its address"
            )
        workers = sorted(info)
        self._threads = sum(entry["nthreads"] for entry in info.values())
        self._network = client.scatter(network, broadcast=True, hash=False)
        self._home = [workers[number % len(workers)] for number in range(len(batches))]
        self._pixels = [
            client.scatter(pixels, workers=[home], hash=False)
            for pixels, home in zip(batches, self._home, strict=True)
        ]
        self._numbers = itertools.count()
        self._sent: OrderedDict[int, tuple[Choice, _Numbered]] = OrderedDict()  # by identity

    def _numbered(self, choice: Choice) -> _Numbered:
        """What is sent for a choice; the latest ones keep their numbers."""
        key = id(choice)  # which is its own while the table holds the choice
        if key not in self._sent:
            self._sent[key] = (choice, (next(self._numbers), _slim(choice)))
        self._sent.move_to_end(key)
        while len(self._sent) > _REMEMBERED:
            self._sent.popitem(last=False)
        return self._sent[key][1]

    def run(
        self, base: Choice | None, choice: Choice, order: Sequence[int], consume: Consume
    ) -> None:
        """See `Pool.run`."""
        start = None if base is None else self._numbered(base)
        candidate = self._numbered(choice)

        def submit(number: int) -> Any:
            return self._client.submit(
                _task, self._name, number, self._network, self._pixels[number], self._keep, start,
                candidate, pure=False, workers=[self._home[number]], allow_other_workers=True,
            )  # fmt: skip

        _stream(
            submit, lambda task: task.result(), lambda task: task.cancel(), order,
            self._threads + _AHEAD, consume,
        )  # fmt: skip

    def close(self) -> None:
        """See `Pool.close`; the client stays open."""
        self._client.run(_forget, self._name)


@contextmanager
def open_pool(
    address: str | None, network: FakeQuantized, batches: Sequence[np.ndarray],
    keep: frozenset[str],
) -> Iterator[Pool]:  # fmt: skip
    """The pool that SCHEDULER asks for; None: this machine's cores."""
    if address is None:
        pool: Pool = Threads(network, batches, keep)
        try:
            yield pool
        finally:
            pool.close()
        return
    with connect(address) as client:
        pool = Dask(client, network, batches, keep)
        try:
            yield pool
        finally:
            pool.close()
