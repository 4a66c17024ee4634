# SPDX-License-Identifier: Apache-2.0
"""The registry, and the shapes of its networks against independent torch modules."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from nuq.formats.errors import UserError
from nuq.model_prep import networks


class TorchAlexNet(nn.Module):
    """AlexNet as torchvision writes it down."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(),
            nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000),
        )  # fmt: skip


class TorchVgg16(nn.Module):
    """VGG-16 as torchvision writes it down, configuration D."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for out in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
            if out:
                layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(True)]
                channels = out
            else:
                layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096), nn.ReLU(True), nn.Dropout(),
            nn.Linear(4096, 4096), nn.ReLU(True), nn.Dropout(), nn.Linear(4096, 1000),
        )  # fmt: skip


TWINS = {"alexnet": TorchAlexNet, "vgg16": TorchVgg16}


@pytest.fixture()
def open_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose modules belong to the registry for the time of a test."""
    monkeypatch.setattr(networks, "__path__", [*networks.__path__, str(tmp_path)])
    networks.registry.cache_clear()
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]
    networks.registry.cache_clear()


@pytest.mark.parametrize(
    ("net", "parameters", "macs"),
    [
        ("alexnet", 61_100_840, 714_188_480),
        ("vgg16", 138_357_544, 15_470_264_320),
        ("digits", 34_058, 690_304),
        ("cifar10", 214_282, 9_017_344),
    ],
)
def test_sizes_are_the_published_ones(net: str, parameters: int, macs: int) -> None:
    spec = networks.get(net)
    graph = spec.empty()
    assert spec.parameters == parameters
    assert sum(layer.weight.size + layer.bias.size for layer in graph.layers) == parameters
    assert graph.macs == macs


@pytest.mark.parametrize("net", TWINS)
def test_checkpoint_keys_and_shapes_are_torchvisions(net: str) -> None:
    with torch.device("meta"):
        twin = TWINS[net]().state_dict()
    expected = [(name, tuple(tensor.shape)) for name, tensor in twin.items()]
    assert list(networks.get(net).state_shapes.items()) == expected


@pytest.mark.parametrize("net", TWINS)
def test_stored_shapes_equal_those_of_the_torch_module(net: str) -> None:
    with torch.device("meta"):
        twin, x = TWINS[net](), torch.empty(1, 3, 224, 224)
        modules = [*twin.features, nn.Flatten(), *twin.classifier]
    convolutions, stored = [], []
    for index, module in enumerate(modules):
        x = module(x)
        following = modules[index + 1] if index + 1 < len(modules) else None
        if isinstance(module, nn.Conv2d | nn.Linear):
            convolutions.append((*x.shape[1:], 1, 1)[:3])
            stored.append(convolutions[-1])
        elif isinstance(module, nn.MaxPool2d):
            stored[-1] = tuple(x.shape[1:])
        assert following is not None or x.shape == (1, 1000)
    graph = networks.get(net).empty()
    assert [layer.conv_shape for layer in graph.layers] == convolutions
    assert [layer.out_shape for layer in graph.layers] == stored


def test_alexnet_shapes() -> None:
    graph = networks.get("alexnet").empty()
    assert [
        (layer.name, layer.kind, layer.conv_shape, layer.out_shape) for layer in graph.layers
    ] == [
        ("conv1", "conv", (64, 55, 55), (64, 27, 27)),
        ("conv2", "conv", (192, 27, 27), (192, 13, 13)),
        ("conv3", "conv", (384, 13, 13), (384, 13, 13)),
        ("conv4", "conv", (256, 13, 13), (256, 13, 13)),
        ("conv5", "conv", (256, 13, 13), (256, 6, 6)),
        ("fc6", "fc", (4096, 1, 1), (4096, 1, 1)),
        ("fc7", "fc", (4096, 1, 1), (4096, 1, 1)),
        ("fc8", "fc", (1000, 1, 1), (1000, 1, 1)),
    ]
    assert graph.layer("fc6").in_shape == (256, 6, 6)
    assert [layer.name for layer in graph.layers if not layer.activation] == ["fc8"]


def test_vgg16_has_13_convolutions_and_5_pools() -> None:
    graph = networks.get("vgg16").empty()
    assert [layer.kind for layer in graph.layers] == ["conv"] * 13 + ["fc"] * 3
    assert [layer.name for layer in graph.layers if layer.pool] == [
        "conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"
    ]  # fmt: skip
    assert graph.layer("conv5_3").out_shape == (512, 7, 7)


def test_digits_shapes() -> None:
    graph = networks.get("digits").empty()
    assert [layer.out_shape for layer in graph.layers] == [
        (24, 8, 8), (32, 4, 4), (48, 2, 2), (64, 1, 1), (10, 1, 1)
    ]  # fmt: skip


def test_cifar10_has_the_maps_of_paper_002_and_a_quarter_of_its_channels() -> None:
    graph = networks.get("cifar10").empty()
    assert [(*layer.conv_shape[1:], layer.kernel[0]) for layer in graph.layers[:-1]] == [
        (22, 22, 3), (12, 12, 3), (10, 10, 3), (8, 8, 3), (5, 5, 3), (2, 2, 7)
    ]  # fmt: skip
    paper = [256, 128, 256, 256, 256, 128]
    assert [4 * layer.conv_shape[0] for layer in graph.layers[:-1]] == paper
    sizes = [layer.weight.size for layer in graph.layers[1:-1]]
    assert [size * 16 for size in sizes] == [294_912, 294_912, 589_824, 589_824, 1_605_632]


@pytest.mark.parametrize("net", ["alexnet", "cifar10", "digits", "vgg16"])
def test_every_network_has_a_complete_entry(net: str) -> None:
    spec = networks.get(net)
    graph = spec.empty()
    assert graph.name == spec.name == net
    assert graph.in_shape == spec.in_shape
    assert spec.outputs == graph.layers[-1].out_shape[0]
    assert len(spec.preprocessing.mean) == len(spec.preprocessing.std) == spec.in_shape[0]
    assert (spec.url is None) != (spec.packaged is None)


def test_registry_is_sorted_and_keyed_by_name() -> None:
    assert list(networks.registry()) == ["alexnet", "cifar10", "digits", "vgg16"]
    assert all(spec.name == name for name, spec in networks.registry().items())


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("alexnt", "; did you mean alexnet?"),
        ("AlexNet", "; did you mean alexnet?"),
        ("vgg19", "; did you mean vgg16?"),
        ("resnet50", ""),
        ("alexnet.toml", "; settings are given as CONFIG=alexnet.toml"),
        ("", ""),
        ("spec", ""),
    ],
)
def test_unknown_network_lists_what_exists(name: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        networks.get(name)
    assert (
        str(caught.value)
        == f"NET must be one of alexnet, cifar10, digits, vgg16, not {name!r}{hint}"
    )


def test_a_file_of_torch_is_sent_to_the_exporter() -> None:
    with pytest.raises(UserError) as caught:
        networks.get("a/net.pth")
    assert str(caught.value) == (
        "NET must be one of alexnet, cifar10, digits, vgg16 or an .onnx file, not 'a/net.pth'; "
        "export a network of torch to that first (docs/tutorial.md), or give weights of one of "
        "these as WEIGHTS"
    )


def test_a_file_dropped_in_is_a_network(open_registry: Path) -> None:
    source = (Path(networks.__file__).parent / "digits.py").read_text()
    (open_registry / "tiny.py").write_text(source.replace('"digits"', '"tiny"', 1))
    assert list(networks.registry()) == ["alexnet", "cifar10", "digits", "tiny", "vgg16"]
    assert networks.get("tiny").parameters == networks.get("digits").parameters
    with pytest.raises(
        UserError, match="^NET must be one of alexnet, cifar10, digits, tiny, vgg16, not 'tny'"
    ):
        networks.get("tny")
