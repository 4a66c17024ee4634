# SPDX-License-Identifier: Apache-2.0
"""Adapters of the memory ports and streams: what is counted is what the sources say."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from nuq.codegen.design import ports
from nuq.codegen.design.ports import Adapter, adapters
from nuq.codegen.design.resources import RESOURCES, estimate, memories
from nuq.codegen.design.search import choose
from nuq.codegen.design.streams import DESCRIPTOR_BITS, streams
from nuq.codegen.emit.render import render_all
from nuq.formats.build import find_compiler, find_headers
from nuq.formats.errors import UserError
from nuq.formats.hardware import find_part
from tests.checkout import ROOT, execute, needs_compiler
from tests.networks import full_size, planned

ENGINE = ROOT / "hls_templates" / "engine"


def blocks(adapter: Adapter) -> float:
    return sum(memory.bram18 for memory in adapter.memories("p")) / 2


@pytest.mark.parametrize(
    ("adapter", "expected"),
    [
        (ports.WEIGHT_ADAPTER, 1),
        (Adapter(reads=16, read_burst=256), 8),  # Vitis HLS's default of 16 requests
        (Adapter(reads=4, read_burst=64, writes=4, write_burst=64), 2),
        (Adapter(), 0),
    ],
)
def test_an_adapter_holds_every_burst_under_way(adapter: Adapter, expected: float) -> None:
    assert blocks(adapter) == expected


def test_pragmas_are_the_table() -> None:
    made = planned("alexnet")
    text = render_all(made)["accelerator.cpp"]
    found = {}
    for line in re.findall(r"#pragma HLS INTERFACE m_axi (.*)", text):
        options = dict(re.findall(r"(\w+) = (\w+)", line))
        found[options["port"]] = Adapter(
            int(options["num_read_outstanding"]), int(options["max_read_burst_length"]),
            int(options["num_write_outstanding"]), int(options["max_write_burst_length"]),
        )  # fmt: skip
    assert found.pop("program") == found["fm_in"], "one adapter for the bundle of both"
    assert found == adapters(made.array.weight_ports)


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_both_networks_fit_nine_tenths_of_the_default_part(name: str) -> None:
    made = choose(full_size(name), find_part("XC7Z020"), 1, {})
    for resource in RESOURCES:
        assert getattr(made.resources, resource) <= 0.9 * getattr(made.part, resource)
    counted = {memory.name for memory in memories(made.sizes, made.part)}
    assert {f"port {port}, words read" for port in adapters(made.array.weight_ports)} <= counted


def test_adapters_of_the_default_size_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left for AlexNet's feature maps is then too little, and it is said."""
    axes, part = {"simd": 24, "pe": 8, "weight_ports": 3, "fm": "chip"}, find_part("XC7Z020")
    choose(full_size("alexnet"), part, 1, axes)
    monkeypatch.setattr(ports, "WEIGHT_ADAPTER", Adapter(reads=16, read_burst=256))
    with pytest.raises(UserError, match="must have room on chip for"):
        choose(full_size("alexnet"), part, 1, axes)


def test_nothing_above_the_limit_is_planned() -> None:
    made = planned("alexnet")
    used = estimate(made.sizes, made.part).bram36
    smaller = replace(made.part, bram36=used)  # the same design would take all of it
    assert planned("alexnet", part=smaller).resources.bram36 <= 0.9 * used


def test_outstanding_bursts_are_those_that_the_engine_asks_for() -> None:
    text = render_all(planned("alexnet"))["network.hpp"]
    for name, adapter in zip(("READ", "WRITE"), ports.MAP_ADAPTERS, strict=True):
        ahead = re.search(rf"{name}_AHEAD = (\d+);", text)
        assert ahead and int(ahead[1]) == max(adapter.reads, adapter.writes)
    source = (ENGINE / "memory.hpp").read_text()
    assert "C::READ_AHEAD" in source and "C::WRITE_AHEAD" in source


def test_streams_are_the_engines_and_as_deep() -> None:
    source = (ENGINE / "engine.hpp").read_text()
    depth = {
        name: int(value) for name, value in re.findall(r"const int (\w+)_DEPTH = (\d+);", source)
    }
    counted = {stream.name: stream.depth for stream in streams(planned("alexnet").sizes)}
    found = {}
    for names, places in re.findall(r"Stream<(?:[^;]*, (\w+))> ([^;]*);", source):
        wanted = 2 if names == "2" else depth[names.removesuffix("_DEPTH")]
        found |= dict.fromkeys(re.findall(r"(\w+)\(", places), wanted)
    assert counted | {"scales": 2} == found  # without scales nothing is left of their stream


@needs_compiler
def test_descriptors_are_as_wide_as_counted(tmp_path: Path) -> None:
    source = (ENGINE / "work.hpp").read_text()
    works = re.findall(r"^(template <class C>\n)?struct (\w+Work) \{", source, re.M)
    assert "LoadWork" in [name for _, name in works]
    for name, text in render_all(planned("alexnet")).items():
        (tmp_path / name).write_text(text)
    total = " + ".join(f"sizeof({name}{'<Network>' if head else ''})" for head, name in works)
    (tmp_path / "sizes.cpp").write_text(
        '#include "network.hpp"\n#include "work.hpp"\n#include <cstdio>\n'
        f'int main() {{ std::printf("%zu", 8 * ({total})); }}\n'
    )
    flags = ("-std=c++14", "-w", "-DCSIM_FAST", "-isystem", str(find_headers()))
    execute(find_compiler(), *flags, "sizes.cpp", "-o", "sizes", folder=tmp_path, status=0)
    bits = int(execute("./sizes", folder=tmp_path, status=0).stdout)
    assert 0.7 * DESCRIPTOR_BITS <= bits <= 1.1 * DESCRIPTOR_BITS, bits
