# SPDX-License-Identifier: Apache-2.0
"""Who computes a candidate: threads of this process, or the workers of a Dask cluster.

Both take batches of images as tasks, each on one torch thread, so that results depend neither on
the number of cores nor on the cluster. SCHEDULER=tcp://host:port names a cluster.
"""

import itertools
import os
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from operator import attrgetter
from typing import Any

import numpy as np
import torch

from nuq.formats.errors import UserError
from nuq.model_prep.allocate.cache import BatchRun, Choice
from nuq.model_prep.quantize.fake_quant import FakeQuantized

_CONNECT_SECONDS = 10
_REMEMBERED = 3  # choices: a base, a candidate, and one of a task that was not stopped in time
_AHEAD = 2  # tasks given out beyond the workers, so that none waits for the next one

Consume = Callable[[int, np.ndarray], bool]


class Pool(ABC):
    """Runs candidates on all batches of images, a task a batch."""

    workers: int

    @abstractmethod
    def tasks(self, base: Choice | None, choice: Choice) -> Callable[[int], Any]:
        """What starts a candidate's task of a batch; its `result()` are the outputs."""

    @abstractmethod
    def drop(self, task: Any) -> None:
        """Stop a task whose result nobody wants."""

    @abstractmethod
    def close(self) -> None:
        """Free what the pool holds."""

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
        start, numbers = self.tasks(base, choice), iter(order)
        under_way = [(n, start(n)) for n in itertools.islice(numbers, self.workers + _AHEAD)]
        try:
            while under_way:
                number, task = under_way.pop(0)
                if not consume(number, task.result()):
                    return
                under_way += [(ahead, start(ahead)) for ahead in itertools.islice(numbers, 1)]
        finally:
            for _, task in under_way:
                self.drop(task)


class Threads(Pool):
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
        self.workers = workers or cores
        self._runs = [BatchRun(network, pixels, keep) for pixels in batches]
        each = max(1, cores // self.workers)
        self._before = torch.get_num_threads()
        torch.set_num_threads(each)
        self._executor = ThreadPoolExecutor(
            self.workers, initializer=torch.set_num_threads, initargs=(each,)
        )

    def tasks(self, base: Choice | None, choice: Choice) -> Callable[[int], Any]:  # noqa: D102
        def start(number: int) -> Future[np.ndarray]:
            return self._executor.submit(self._runs[number].outputs, base, choice)

        return start

    def drop(self, task: Any) -> None:  # noqa: D102
        if not task.cancel():
            wait([task])  # a batch serves one task at a time

    def close(self) -> None:  # noqa: D102
        self._executor.shutdown()
        self._runs = []
        torch.set_num_threads(self._before)


@dataclass(frozen=True)
class _Sent:
    """A choice on its way to a worker, with a number, as identity does not travel."""

    number: int
    choice: Choice = field(compare=False)


# On a Dask worker: caches by (pool, batch), made when a task first needs them, so that a batch
# which moves to another worker only costs its cache; by pool the latest choices, so that all tasks
# have the same object for a base, and a base that was a candidate is known as such. A forgotten one
# costs a cache what it could have reused, and changes no result.
_RUNS: dict[tuple[str, int], tuple[threading.Lock, BatchRun]] = {}
_LATEST: dict[str, Any] = {}
_LOCK = threading.Lock()


def _known(pool: str, sent: _Sent) -> Choice:
    """The choice with this number that a task of the pool brought first."""
    latest = _LATEST.setdefault(pool, lru_cache(_REMEMBERED)(attrgetter("choice")))
    first: Choice = latest(sent)
    return first


def _task(
    pool: str, number: int, network: FakeQuantized, pixels: np.ndarray, keep: frozenset[str],
    base: _Sent | None, choice: _Sent,
) -> np.ndarray:  # fmt: skip
    """One batch of one candidate, on a worker."""
    torch.set_num_threads(1)
    with _LOCK:
        made = threading.Lock(), BatchRun(network, pixels, keep)
        lock, run = _RUNS.setdefault((pool, number), made)
        start = None if base is None else _known(pool, base)
        candidate = _known(pool, choice)
    with lock:
        return run.outputs(start, candidate)


def _forget(pool: str) -> None:
    """Free a pool's caches on a worker."""
    with _LOCK:
        _LATEST.pop(pool, None)
        for key in [key for key in _RUNS if key[0] == pool]:
            _RUNS.pop(key, None)


def _slim(choice: Choice) -> Choice:
    """The same choice without the tables that a quantizer computes when it is used."""
    slim = {id(quantizer): replace(quantizer) for quantizer in choice.quantizers.values()}
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


class Dask(Pool):
    """The workers of a cluster: network and images are sent once, then candidates batch by batch.

    Workers need this project's modules and the same versions of numpy and torch.
    """

    def __init__(
        self, client: Any, network: FakeQuantized, batches: Sequence[np.ndarray],
        keep: frozenset[str],
    ) -> None:  # fmt: skip
        """`client` is a distributed.Client, which stays open; the others as for `Threads`."""
        self._client, self._keep, self._name = client, keep, uuid.uuid4().hex
        info = client.scheduler_info(n_workers=-1)["workers"]
        if not info:
            raise UserError(
                "SCHEDULER must have workers, not none; start dask worker with its address"
            )
        names = sorted(info)
        self.workers = sum(entry["nthreads"] for entry in info.values())
        self._network = client.scatter(network, broadcast=True, hash=False)
        self._home = [names[number % len(names)] for number in range(len(batches))]
        self._pixels = [
            client.scatter(pixels, workers=[home], hash=False)
            for pixels, home in zip(batches, self._home, strict=True)
        ]
        numbers = itertools.count()
        self._sent = lru_cache(_REMEMBERED)(lambda choice: _Sent(next(numbers), _slim(choice)))

    def tasks(self, base: Choice | None, choice: Choice) -> Callable[[int], Any]:  # noqa: D102
        first, second = None if base is None else self._sent(base), self._sent(choice)

        def start(number: int) -> Any:
            return self._client.submit(
                _task, self._name, number, self._network, self._pixels[number], self._keep, first,
                second, pure=False, workers=[self._home[number]], allow_other_workers=True,
            )  # fmt: skip

        return start

    def drop(self, task: Any) -> None:  # noqa: D102
        task.cancel()

    def close(self) -> None:  # noqa: D102
        self._client.run(_forget, self._name)


@contextmanager
def open_pool(
    address: str | None, network: FakeQuantized, batches: Sequence[np.ndarray],
    keep: frozenset[str],
) -> Iterator[Pool]:  # fmt: skip
    """The pool that SCHEDULER asks for; None: this machine's cores."""
    if address is None:
        with closing(Threads(network, batches, keep)) as threads:
            yield threads
    else:
        with connect(address) as client, closing(Dask(client, network, batches, keep)) as cluster:
            yield cluster
