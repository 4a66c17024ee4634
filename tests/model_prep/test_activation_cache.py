# SPDX-License-Identifier: Apache-2.0
"""The activation cache against the evaluation from the pixels on: every bit is the same."""

from collections.abc import Iterator

import numpy as np
import pytest
import random_graphs
import torch
from digits_network import Ready, ready_for

from nuq.formats.build import free_memory
from nuq.model_prep import run
from nuq.model_prep.allocate.cache import BatchRun, Choice, FloatBase, cache_bytes, layers_to_keep
from nuq.model_prep.allocate.problem import Problem, with_width
from nuq.model_prep.quantize.calibrate import Calibration
from nuq.model_prep.quantize.fake_quant import FakeQuantized
from nuq.model_prep.quantize.fracs import layer_fracs
from nuq.model_prep.quantize.plan import Settings
from nuq.model_prep.quantize.plan_file import resolve

QM = 10


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def digits_parts(**settings: object) -> tuple[Problem, FakeQuantized, np.ndarray]:
    ready: Ready = ready_for(labels=False, number=12, few=12, qm=QM, **settings)
    return ready.problem, ready.sample.network, ready.sample.pixels


def check(
    problem: Problem, network: FakeQuantized, pixels: np.ndarray, keep: list[str], seed: int
) -> BatchRun:
    """Candidates and bases as a search would have them."""
    batch, random = BatchRun(network, pixels, frozenset(keep)), np.random.default_rng(seed)
    base = problem.uniform(4)
    for _ in range(12):
        number = int(random.integers(len(problem.groups)))
        trial = with_width(base, number, int(random.choice(problem.groups[number].widths)))
        choice = problem.choice(trial)
        got = batch.outputs(problem.choice(base), choice)
        assert got.tobytes() == batch.outputs(None, choice).tobytes()
        assert got.tobytes() == network.logits(pixels, choice.quantizers).tobytes()
        base = trial if random.integers(2) else base
    return batch


@pytest.mark.parametrize("scheme", ["knq", "enq", "uniform"])
@pytest.mark.parametrize("stride", [1, 2, 0])
def test_digits(scheme: str, stride: int) -> None:
    problem, network, pixels = digits_parts(scheme=scheme)
    names = list(problem.graph.elements)
    batch = check(problem, network, pixels, names[stride - 1 :: stride] if stride else [], seed=2)
    assert bool(batch._kept or batch._pending) == bool(stride)


@pytest.mark.parametrize("seed", range(8))
def test_random_dags(seed: int) -> None:
    """Concatenations, sums, copies, pools; checkpoints at random layers."""
    random = np.random.default_rng(seed)
    graph = random_graphs.read_graph(random)
    pixels = random.integers(0, 256, (3, *graph.in_shape), dtype=np.uint8)
    source = random_graphs.random_input(random, graph)
    plan = resolve(graph, Settings(bits="auto"), Settings(scheme="knq"))
    network = FakeQuantized(graph, source, plan.layers)
    calibration = Calibration(graph, pixels, network.start, QM)
    formats = calibration.formats(QM, layer_fracs(calibration.maxima, QM, plan))
    names = list(graph.elements)
    for keep in (names, [name for name in names if random.integers(2)]):
        check(Problem(graph, plan, formats), network, pixels, keep, seed)


def test_replaced_weights() -> None:
    problem, network, pixels = digits_parts()
    floats = FloatBase(problem.graph, lambda weight, factor: torch.from_numpy(weight * factor))
    batch = BatchRun(network, pixels, frozenset(floats.weights))
    base = floats.base
    for name in floats.weights:
        choice = floats.choice({name: np.float32(0.5)}, {})
        assert batch.outputs(base, choice).tobytes() == batch.outputs(None, choice).tobytes()
        assert batch.outputs(base, base).tobytes() == batch.outputs(None, base).tobytes()
        assert batch.outputs(None, base).tobytes() != batch.outputs(None, choice).tobytes()
    done = batch.outputs(None, Choice({}, base.weights))  # the float network
    want = run.forward(problem.graph, network.start(pixels)).numpy()
    assert np.abs(done - want).max() < 0.01 * np.abs(want).max()  # biases have 14 bits


def test_what_is_kept_stays_within_the_limit() -> None:
    problem, _, _ = digits_parts()
    graph = problem.graph
    typical = problem.choice(problem.widest).quantizers
    names = frozenset(graph.elements)
    sizes = {name: (2 + 4) * 7 * values for name, values in graph.elements.items()}
    everything = sum(sizes.values())
    assert layers_to_keep(graph, typical, 7, everything) == names
    fewer = layers_to_keep(graph, typical, 7, everything - 1)
    assert fewer < names
    assert sum(sizes[name] for name in fewer) < everything
    assert layers_to_keep(graph, typical, 7, 0) == frozenset()
    assert layers_to_keep(graph, {}, 7, everything) != names  # float32 is larger
    assert cache_bytes(0.5) == 500_000_000
    assert 0 < cache_bytes(None) < free_memory()
