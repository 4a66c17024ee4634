# SPDX-License-Identifier: Apache-2.0
"""Whole networks from torch: both exporters and their opsets in float, and the C-simulation."""

from collections import Counter
from pathlib import Path

import pytest
import tiny_networks
from onnx_models import compare, save
from torch_networks import NETWORKS, exported, save_images

from nuq.formats.commands import main
from tests.checkout import needs_compiler
from tests.toys import read_json

EXPORTERS = [(False, opset) for opset in range(13, 21)] + [(True, opset) for opset in (18, 20)]
LONG = ("densenet121", "shufflenet_v2")
LAYERS = {  # what each kind must count
    "mobilenet_v3_small": {"mul": 9, "add": 6},
    "efficientnet_b0": {"mul": 16, "add": 9},
    "regnet_y_400mf": {"mul": 16, "add": 16},
    "squeezenet1_1": {"conv": 26},
    "densenet121": {"conv": 120 + 62},  # a normalisation of what others read is one, too
    "shufflenet_v2": {"fc": 1},
    "detector": {"add": 3},
    "unet_transposed": {"conv": 18},
    "unet_nearest": {"conv": 18},
    "mlp": {"fc": 3},
    "resnet8": {"conv": 9, "add": 3, "avgpool": 1, "fc": 1},
    "ds_cnn": {"conv": 9, "avgpool": 1, "fc": 1},
    "mobilenet_v1": {"conv": 27, "avgpool": 1, "fc": 1},
    "autoencoder": {"fc": 10},
}
CASES = [
    pytest.param(
        name,
        dynamo,
        opset,
        marks=[] if (dynamo, opset) == (False, 17) and name not in LONG else pytest.mark.slow,
    )
    for name in NETWORKS
    for dynamo, opset in EXPORTERS
]


@pytest.mark.filterwarnings("ignore")  # of the exporters about themselves
@pytest.mark.parametrize(("name", "dynamo", "opset"), CASES)
def test_float_values_are_those_of_onnxruntime(
    name: str, dynamo: bool, opset: int, tmp_path: Path
) -> None:
    graph = compare(exported(name, dynamo, opset), tmp_path).graph
    counts = Counter(layer.kind for layer in graph.layers)
    assert {kind: counts[kind] for kind in LAYERS[name]} == LAYERS[name]
    copies = sum(
        layer.kind == "maxpool" and layer.pool is not None and layer.pool.kernel == (1, 1)
        for layer in graph.layers
    )
    assert not copies


@needs_compiler
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETWORKS)
def test_integers_are_those_of_the_c_simulation(name: str, tmp_path: Path) -> None:
    path, out = save(exported(name, False, 17), tmp_path / f"{name}.onnx"), tmp_path / "out"
    save_images(name, tmp_path / "data.npz")
    bits = 5 if name in tiny_networks.NETWORKS else 6
    options = [f"NET={path}", f"DATA={tmp_path / 'data.npz'}", f"BITS={bits}", "IMAGES=1"]
    assert main(["quantize", *options, "SCHEME=knq", f"OUT={out}"]) == 0
    assert main(["codegen", f"OUT={out}"]) == 0
    assert main(["csim", f"OUT={out}"]) == 0
    assert read_json(out)["csim"]["mismatches"] == 0
