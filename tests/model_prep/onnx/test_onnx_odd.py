# SPDX-License-Identifier: Apache-2.0
"""Odd graphs: each becomes a Network with onnxruntime's values, or is refused in one sentence."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from odd_graphs import SCHEMAS, Maker
from onnx import ModelProto
from onnx_models import TOLERANCE, outputs, random, runtimes, save

from nuq.formats.errors import UserError
from nuq.model_prep.onnx import ImportedNetwork, load_onnx

QUICK, ALL = 120, 2000  # files
LONGEST = 3000  # characters of a message about 8 nodes


def outcome(model: ModelProto, folder: Path) -> str:
    """What comes: "refused", "equal" to onnxruntime, or "alone" where that does not run it."""
    path = save(model, folder / "odd.onnx")
    try:
        network = load_onnx(path)
    except UserError as error:
        check_sentence(str(error), path, model)
        return "refused"
    return "equal" if compared(model, network) else "alone"


def check_sentence(text: str, path: Path, model: ModelProto) -> None:
    """One line, of the file, that names a node or a tensor, or says what the model must be."""
    assert text.startswith(f"{path}: ")
    assert text.isprintable() and len(text) < LONGEST
    about = text.removeprefix(f"{path}: ")
    names = {name for node in model.graph.node for name in (node.name, *node.input, *node.output)}
    names |= {value.name for value in (*model.graph.input, *model.graph.output)}
    assert about.startswith("the model") or any(name and name in about for name in names), about
    assert " must " in about or "cannot" in about, about


def compared(model: ModelProto, network: ImportedNetwork) -> bool:
    """Whether onnxruntime runs the file; its values must then be the network's."""
    x = random(1, 1, *network.in_shape)
    if any(step.kind == "argmax" for one in network.outputs for step in one.ending):
        return False  # an index says nothing where values are nearly equal
    try:
        wanted = runtimes(model, network, x)
    except Exception:  # onnxruntime raises its own types, which have no common base
        return False
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        return False  # which rounds
    for expected, found in zip(wanted, outputs(network, x), strict=True):
        assert found.shape == expected.shape
        largest = float(np.abs(expected).max())
        assert np.abs(found - expected).max() <= TOLERANCE * max(largest, 1e-20)
    return True


def run(seeds: range, folder: Path) -> dict[str, int]:
    """How often each outcome came; a failure names its seed."""
    onnxruntime.set_default_logger_severity(4)
    counts = {"refused": 0, "equal": 0, "alone": 0}
    for seed in seeds:
        try:
            counts[outcome(Maker(seed).model(), folder)] += 1
        except Exception as error:
            pytest.fail(f"seed {seed}: {type(error).__name__}: {error}")
    return counts


def test_odd_graphs(tmp_path: Path) -> None:
    counts = run(range(QUICK), tmp_path)
    assert counts["equal"] >= QUICK // 20  # they are not all refused
    assert counts["refused"] >= QUICK // 4


@pytest.mark.slow
def test_two_thousand_odd_graphs(tmp_path: Path) -> None:
    counts = run(range(QUICK, QUICK + ALL), tmp_path)
    assert counts["equal"] >= ALL // 20


def test_every_operator_of_the_standard_is_drawn() -> None:
    drawn = {node.op_type for seed in range(3000) for node in Maker(seed).model().graph.node}
    assert len(SCHEMAS.keys() - drawn) <= 2


def test_a_network_that_differs_from_onnxruntime_is_found(tmp_path: Path) -> None:
    """The comparison can fail: weights that are changed after the import."""
    seed = next(seed for seed in range(QUICK) if outcome(Maker(seed).model(), tmp_path) == "equal")
    model = Maker(seed).model()
    network = load_onnx(save(model, tmp_path / "odd.onnx"))
    for layer in network.graph.layers:
        layer.bias = layer.bias + np.float32(1)
    with pytest.raises(AssertionError):
        compared(model, network)
