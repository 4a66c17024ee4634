# SPDX-License-Identifier: Apache-2.0
"""The one training loop: steps of an optimizer with a schedule, each batch divided among workers.

What is learned depends on seeds, images and settings only, not on the number of cores: a batch is
divided into as many shards as its caller says, and torch's sums run on one thread.
"""

import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

S = TypeVar("S")
SHARDS = 2  # workers that divide a batch, whatever the number of cores: sums stay the same


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """One thread for torch and its generator seeded; gradients on. All is as before afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums do not depend on a count, and small networks are faster
    try:
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def checkpoint(state: Mapping[str, torch.Tensor]) -> bytes:
    """The file of a state_dict."""
    buffer = io.BytesIO()
    torch.save({name: tensor.detach() for name, tensor in state.items()}, buffer)
    return buffer.getvalue()


def train(
    optimizer: torch.optim.Optimizer, schedule: LRScheduler | None, batches: Iterable[Sequence[S]],
    loss: Callable[[S], torch.Tensor], steps: int, title: str,
) -> list[float]:  # fmt: skip
    """Take a step of the optimizer for every batch; return the loss of each.

    Args:
        optimizer: of the parameters.
        schedule: of its rates, a step a batch; None where `batches` takes its steps.
        batches: each as shards, whose losses and gradients are added.
        loss: of one shard.
        steps: how many batches there are, for the progress bar.
        title: of the progress bar.
    """
    parameters = [one for group in optimizer.param_groups for one in group["params"]]

    def gradients(shard: S) -> tuple[float, tuple[torch.Tensor | None, ...]]:
        with torch.enable_grad():
            value = loss(shard)
            return float(value.detach()), torch.autograd.grad(value, parameters, allow_unused=True)

    losses = []
    with (
        ThreadPoolExecutor(SHARDS, initializer=torch.set_num_threads, initargs=(1,)) as workers,
        tqdm(total=steps, desc=title, unit="step", disable=not sys.stderr.isatty()) as bar,
    ):
        for shards in batches:
            results = list((workers.map if len(shards) > 1 else map)(gradients, shards))
            for index, parameter in enumerate(parameters):
                parts = [one for _, grads in results if (one := grads[index]) is not None]
                parameter.grad = torch.stack(parts).sum(0) if parts else None
            optimizer.step()
            if schedule is not None:
                schedule.step()
            losses.append(sum(value for value, _ in results))
            bar.update()
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    return losses
