# SPDX-License-Identifier: Apache-2.0
"""The activation cache against the evaluation from the pixels on: every bit is the same."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import random_graphs
import torch

from formats.network import InputFormat
from model_prep import networks, run, weights
from model_prep.allocate import cache
from model_prep.allocate.cache import BatchRun, Choice, layers_to_keep
from model_prep.allocate.problem import Problem, Widths
from model_prep.graph import Graph
from model_prep.quantize.calibrate import Calibration
from model_prep.quantize.fake_quant import FakeQuantized
from model_prep.quantize.fracs import layer_fracs
from model_prep.quantize.integers import network_input
from model_prep.quantize.plan import Plan, Settings
from model_prep.quantize.plan_file import resolve

QM = 10


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def problem_of(
    graph: Graph, pixels: np.ndarray, source: InputFormat, **settings: object
) -> tuple[Problem, FakeQuantized]:
    plan: Plan = resolve(graph, Settings(bits="auto", **settings), Settings(scheme="knq"))  # type: ignore[arg-type]

    def to_float(batch: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(source.encode(batch).astype(np.float32)) * 2.0**-source.frac

    calibration = Calibration(graph, pixels, to_float, QM)
    formats = calibration.formats(QM, layer_fracs(calibration.maxima, QM, plan))
    return Problem(graph, plan, formats), FakeQuantized(graph, source, plan.layers)


def digits_problem(**settings: object) -> tuple[Problem, FakeQuantized, np.ndarray]:
    spec = networks.get("digits")
    pixels = np.random.default_rng(1).integers(0, 17, (12, 1, 8, 8), dtype=np.uint8)
    graph = weights.load(spec, None, pixels).graph
    return *problem_of(graph, pixels, network_input(spec), **settings), pixels


def walk(problem: Problem, seed: int, steps: int) -> Iterator[tuple[Widths, Widths, bool]]:
    """(base, candidate, accepted) as a search would have them."""
    random = np.random.default_rng(seed)
    base = problem.uniform(4)
    for _ in range(steps):
        number = int(random.integers(len(problem.groups)))
        bits = int(random.choice(problem.groups[number].widths))
        trial = (*base[:number], bits, *base[number + 1 :])
        accepted = bool(random.integers(2))
        yield base, trial, accepted
        base = trial if accepted else base


def check(
    problem: Problem, network: FakeQuantized, pixels: np.ndarray, keep: Sequence[str], seed: int
) -> BatchRun:
    run = BatchRun(network, pixels, frozenset(keep))
    for base, trial, _ in walk(problem, seed, 12):
        choice = problem.choice(trial)
        got = run.outputs(problem.choice(base), choice)
        assert got.tobytes() == run.outputs(None, choice).tobytes()
        assert got.tobytes() == network.logits(pixels, choice.quantizers).tobytes()
    return run


@pytest.mark.parametrize("scheme", ["knq", "enq", "uniform"])
@pytest.mark.parametrize("stride", [1, 2, 0])
def test_digits(scheme: str, stride: int) -> None:
    problem, network, pixels = digits_problem(scheme=scheme)
    names = [layer.name for layer in problem.graph.layers[:-1]]
    run = check(problem, network, pixels, names[stride - 1 :: stride] if stride else [], seed=2)
    assert bool(run._kept or run._pending) == bool(stride)


def all_read(graph: Graph) -> bool:
    """Whether every layer has a reader, without which a quantizer has nothing to be fitted to."""
    read = {
        part for layer in graph.layers for name in layer.inputs for part in graph.parts_of(name)
    }
    return all(layer.name in read for layer in graph.layers[:-1])


@pytest.mark.parametrize("seed", range(8))
def test_random_dags(seed: int) -> None:
    """Concatenations, sums, copies, pools; checkpoints at random layers."""
    random = np.random.default_rng(seed)
    graph = random_graphs.random_graph(random)
    while not all_read(graph):
        graph = random_graphs.random_graph(random)
    pixels = random.integers(0, 256, (3, *graph.in_shape), dtype=np.uint8)
    source = random_graphs.random_input(random, graph)
    problem, network = problem_of(graph, pixels, source)
    names = [layer.name for layer in graph.layers[:-1]]
    check(problem, network, pixels, names, seed)
    check(problem, network, pixels, [n for n in names if random.integers(2)], seed)


def test_replaced_weights() -> None:
    problem, network, pixels = digits_problem()
    layers = [layer for layer in problem.graph.layers if layer.has_weights]
    exact = {layer.name: torch.from_numpy(layer.weight) for layer in layers}
    base = Choice({}, exact, dict.fromkeys(exact, "float"))
    run = BatchRun(network, pixels, frozenset(exact))
    for layer in layers:
        halved = {**exact, layer.name: exact[layer.name] * 0.5}
        choice = Choice({}, halved, {**base.labels, layer.name: "half"})
        assert run.outputs(base, choice).tobytes() == run.outputs(None, choice).tobytes()
        assert run.outputs(base, base).tobytes() == run.outputs(None, base).tobytes()
        assert run.outputs(None, base).tobytes() != run.outputs(None, choice).tobytes()


def test_float_choice_is_the_float_network() -> None:
    problem, network, pixels = digits_problem()
    layers = [layer for layer in problem.graph.layers if layer.has_weights]
    exact = {layer.name: torch.from_numpy(layer.weight) for layer in layers}
    done = BatchRun(network, pixels, frozenset()).outputs(None, Choice({}, exact))
    want = run.forward(problem.graph, network.start(pixels)).numpy()
    assert np.abs(done - want).max() < 0.01 * np.abs(want).max()  # biases have 14 bits


def test_what_is_kept_stays_within_the_limit() -> None:
    problem, _, _ = digits_problem()
    graph = problem.graph
    typical = problem.choice(problem.widest).quantizers
    names = [layer.name for layer in graph.layers[:-1]]
    sizes = {layer.name: (2 + 4) * 7 * int(np.prod(layer.out_shape)) for layer in graph.layers}
    everything = sum(sizes[name] for name in names)
    assert layers_to_keep(graph, typical, 7, everything) == frozenset(names)
    fewer = layers_to_keep(graph, typical, 7, everything - 1)
    assert fewer < frozenset(names)
    assert sum(sizes[name] for name in fewer) < everything
    assert layers_to_keep(graph, typical, 7, 0) == frozenset()
    assert layers_to_keep(graph, {}, 7, everything) != frozenset(names)  # float32 is larger
    assert cache.cache_bytes(0.5) == 500_000_000
    assert 0 < cache.cache_bytes(None) < cache.free_memory()
