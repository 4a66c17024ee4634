# SPDX-License-Identifier: Apache-2.0
"""One engine, compiled once, runs one network after another on the emulated board, bit-exact."""

import numpy as np
import pytest

from nuq.board.bundle import IMAGES, golden_outputs, read_arrays
from nuq.board.driver import Accelerator
from nuq.board.emulate import prepare
from nuq.board.errors import BundleError, DesignError
from tests.checkout import shared

NETWORKS = {"digits": ("NET=digits",), "cifar10": ("NET=cifar10",)}
LARGE = {"alexnet": ("NET=alexnet", "BITS=3", "WEIGHTS=seeded")}


@pytest.fixture(scope="session")
def engine(compiler, run_stage, tmp_path_factory):
    """build/engine: the general engine of a XC7Z020."""
    folder = tmp_path_factory.mktemp("engine")
    run_stage("codegen", "engine", f"OUT={folder}")
    return folder


@pytest.fixture(scope="session")
def make_network(run_stage, engine):
    """Factory: the unpacked bundle of a network, planned for the engine."""

    def make(name, *options):
        build = engine / name
        run_stage("model_prep", "quantize", *options, "IMAGES=4", f"OUT={build}")
        run_stage("codegen", "codegen", f"OUT={build}", f"ENGINE={engine}")
        return prepare(build, engine)

    return make


@pytest.fixture(scope="session")
def folders(make_network):
    """Bundles of two small networks."""
    return {name: make_network(name, *options) for name, options in NETWORKS.items()}


def check_all(folders, device):
    """Each network in turn, the first one again at the end, on one loaded bitstream."""
    names = [*folders, next(iter(folders))]
    loads = device.fabric.load
    bitstreams = []
    device.fabric.load = lambda path: (bitstreams.append(path), loads(path))
    with Accelerator(folders[names[0]]) as board:
        for name in names[1:]:
            board.load(folders[name])
            golden = read_arrays(folders[name] / IMAGES)
            found = board.predict(golden["images"])
            (logits,) = golden_outputs(golden).values()
            assert np.array_equal(found, logits), name
    assert len(bitstreams) == 1


def test_small_networks_one_after_another(folders, engine, device):
    check_all(folders, device)
    made = engine / "emulator" / "emulator.bit"
    assert made.is_file() and not (engine / "digits" / "emulator" / "emulator.bit").exists()


@pytest.mark.slow
def test_large_networks_too(folders, make_network, device):
    """AlexNet and SqueezeNet beside the small ones."""
    squeezenet = shared("data/squeezenet_v1.0.onnx"), shared("data/imagenet500.npz")
    large = {name: make_network(name, *options) for name, options in LARGE.items()}
    options = (f"NET={squeezenet[0]}", f"DATA={squeezenet[1]}", "BITS=5")
    large["squeezenet_v1_0"] = make_network("squeezenet_v1_0", *options)
    check_all({**folders, **large}, device)


def test_a_bundle_for_another_engine_is_refused(bundle, folders, device):
    with Accelerator(folders["digits"]) as board:
        golden = read_arrays(folders["digits"] / IMAGES)
        with pytest.raises(DesignError, match=r"must be planned for the engine that is loaded, "):
            board.load(bundle)
        with pytest.raises(BundleError, match="manifest.json must exist"):
            board.load(folders["digits"] / "nothing")
        (logits,) = golden_outputs(golden).values()
        assert np.array_equal(board.predict(golden["images"]), logits)


def test_a_network_that_the_engine_cannot_run(run_stage, folders, engine, tmp_path):
    """Codes of 10 bits: the sentence says what is missing, and nothing is written."""
    build = tmp_path / "wide"
    run_stage("model_prep", "quantize", "NET=digits", "SCHEME=enq", "BITS=10", f"OUT={build}")
    with pytest.raises(AssertionError, match=r"the engine must have stored codes of 10 bits \(it"):
        run_stage("codegen", "codegen", f"OUT={build}", f"ENGINE={engine}")
    assert not (build / "params").exists()
