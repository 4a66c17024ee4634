# SPDX-License-Identifier: Apache-2.0
"""Batches of images side by side: a thread a batch, each on one torch thread.

A sum of floats depends on how it is divided, and torch divides it by its number of threads; here
the division is that into batches, so that no result depends on the number of cores.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

CORES = torch.get_num_threads()  # of OMP_NUM_THREADS, else the machine's
torch.set_num_threads(1)


def ordered(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`work` of every item, in the order of the items; as many at once as there are cores."""
    if CORES == 1:
        yield from map(work, items)
        return
    under_way: deque[Future[R]] = deque()
    with ThreadPoolExecutor(CORES, initializer=torch.set_num_threads, initargs=(1,)) as workers:
        try:
            for item in items:
                under_way.append(workers.submit(work, item))
                if len(under_way) > CORES:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for task in under_way:
                task.cancel()
