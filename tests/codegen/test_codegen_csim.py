# SPDX-License-Identifier: Apache-2.0
"""The generated C++ against the naive integer model: bit-exact, and as many cycles as predicted."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nuq.codegen.design import planner
from nuq.codegen.emit import csim
from nuq.formats.arithmetic import Window
from nuq.formats.build import find_compiler, find_headers
from nuq.formats.errors import UserError
from nuq.formats.options import Options
from tests.checkout import needs_compiler
from tests.toys import POOL1, POOL2, POOL3, Toy, ToyLayer, mixed_layers, simulated

CEIL_POOL = Window((3, 3), (2, 2), (0, 1, 2, 1))
EXACT = ("CSIM_TYPES=exact", "SANITIZE=1")


def mixed() -> Toy:
    """All schemes, through a classifier."""
    return Toy(in_shape=(3, 14, 13), layers=mixed_layers())


def grouped() -> Toy:
    """Grouped and dilated convolutions, a branch, an early layer whose output is not read."""
    layers = [
        ToyLayer(32, (3, 3), (2, 2), (1, 1, 1, 1), scheme="uniform", bits=8),
        ToyLayer(64, (3, 3), pads=(2, 2, 2, 2), dilation=(2, 2), groups=2, scheme="knq", bits=2),
        ToyLayer(16, (1, 1), source="layer0", scheme="enq", bits=6, variant="floor"),
        ToyLayer(24, (3, 2), groups=4, pads=(1, 1, 0, 0), source="layer1", scheme="knq", bits=5),
        ToyLayer(40, (3, 3), (3, 1), source="layer3", scheme="uniform", bits=16, pool=POOL2),
        ToyLayer(7, (1, 1), kind="fc"),
    ]
    return Toy(in_shape=(3, 19, 17), layers=layers, in_bits=8, weight_bits=8, images=3, seed=5)


def chunked() -> Toy:
    """More weight rows than the (reduced) weight buffer holds, several images, a fc over a map."""
    layers = [
        ToyLayer(72, (3, 3), pads=(1, 1, 1, 1), pool=POOL3, scheme="knq", bits=3),
        ToyLayer(70, (3, 3), pads=(1, 1, 1, 1), scheme="knq", bits=3),
        ToyLayer(33, (5, 5), scheme="enq", bits=3, variant="round", kind="fc"),
        ToyLayer(30, (1, 1), kind="fc"),
    ]
    return Toy(in_shape=(8, 9, 9), layers=layers, images=4, seed=7)


def awkward() -> Toy:
    """5 and 7 blocks, 11 and 13 columns, strides, dilation, groups, an add, a classifier."""
    layers = [
        ToyLayer(40, (3, 3), pads=(1, 1, 1, 1), scheme="knq", bits=4),
        ToyLayer(56, (5, 3), (2, 1), (2, 1, 1, 0), scheme="enq", bits=5),
        ToyLayer(56, (3, 3), pads=(2, 2, 2, 2), dilation=(2, 2), scheme="knq", bits=3, signed=True),
        ToyLayer(kind="add", source2="layer1", scheme="knq", bits=5),
        ToyLayer(32, (2, 2), groups=2, scheme="uniform", bits=9, pool=POOL2),
        ToyLayer(70, (2, 4), kind="fc", scheme="knq", bits=3),
        ToyLayer(19, (1, 1)),
    ]
    return Toy((3, 13, 11), layers, images=3)


def residual() -> Toy:
    """Adds of different quantizers and F, a max pool with pads as ceil mode gives them, depthwise
    and three-channel groups, a global average pool at the end."""
    layers = [
        ToyLayer(24, (3, 3), (2, 2), (1, 1, 1, 1), bits=4, frac=3),
        ToyLayer(24, pads=(1, 1, 1, 1), scheme="enq", bits=5, signed=True, variant="mid", frac=5),
        ToyLayer(kind="add", source2="layer0", scheme="knq", bits=5),
        ToyLayer(24, (1, 1), signed=True, scheme="knq", bits=6, frac=1),
        ToyLayer(kind="add", source="layer2", source2="layer3", scheme="uniform", bits=9),
        ToyLayer(kind="maxpool", pool=CEIL_POOL, scheme="enq", bits=4, variant="round"),
        ToyLayer(40, (1, 1), scheme="uniform", bits=8, signed=True),
        ToyLayer(40, pads=(1, 1, 1, 1), groups=40, scheme="knq", bits=4),
        ToyLayer(kind="add", source2="layer6", signed=True, scheme="enq", bits=7, variant="floor"),
        ToyLayer(30, groups=10, pads=(1, 1, 1, 1), scheme="uniform", bits=6),
        ToyLayer(30, groups=10, pads=(1, 1, 1, 1), scheme="knq", bits=3, rule="floor"),
        ToyLayer(kind="avgpool", kernel=(4, 4)),
    ]
    return Toy((3, 15, 13), layers, images=3)


def inception() -> Toy:
    """A concat of several sources, a copy of a signed map, average pools of both kinds, LRN."""
    average = {"kernel": (3, 3), "pads": (1, 1, 1, 1), "scheme": "knq", "signed": True}
    layers = [
        ToyLayer(16, scheme="knq", bits=4, frac=3),
        ToyLayer(kind="lrn", lrn_size=5, scheme="knq", bits=5),
        ToyLayer(21, scheme="uniform", bits=8, signed=True),
        ToyLayer(kind="lrn", lrn_size=3, signed=True, scheme="enq", bits=6, variant="round"),
        ToyLayer(kind="avgpool", kernel=(3, 2), stride=(2, 1), pads=(1, 1, 1, 0), signed=True,
                 scheme="uniform", bits=7),
        ToyLayer(kind="maxpool", pool=POOL1, signed=True, scheme="enq", bits=4, variant="mid"),
        ToyLayer(8, (1, 1), scheme="knq", bits=3, name="a", frac=2),
        ToyLayer(kind="avgpool", source="layer4", bits=3, count_include_pad=True, **average),
        ToyLayer(16, pads=(1, 1, 1, 1), like="a", source="layer7", name="b"),
        ToyLayer(5, (1, 1), like="a", source="layer5", name="c"),
        ToyLayer(kind="maxpool", pool=POOL2, source="cat", scheme="knq", bits=2),
        ToyLayer(33, (1, 1), source="cat", scheme="knq", bits=3),
        ToyLayer(kind="avgpool", bits=5, **average),
        ToyLayer(7, (2, 2)),
    ]  # fmt: skip
    return Toy((3, 12, 11), layers, images=2, concats={"cat": ["b", "a", "c"]})


def gated() -> Toy:
    """Products with a pixel of narrow and wide codes, with a map, before a pool and a sum."""
    layers = [
        ToyLayer(20, scheme="knq", bits=5, name="a"),
        ToyLayer(kind="avgpool", kernel=(10, 11), scheme="knq", bits=6, name="mean"),
        ToyLayer(12, (1, 1), scheme="knq", bits=4),
        ToyLayer(20, (1, 1), scheme="knq", bits=5),
        ToyLayer(kind="mul", source="a", source2="layer3", scheme="knq", bits=5, signed=True),
        ToyLayer(20, (1, 1), scheme="enq", bits=5, signed=True, name="b"),
        ToyLayer(kind="mul", source2="a", scheme="uniform", bits=11, signed=True, name="both"),
        ToyLayer(kind="add", source2="b", scheme="knq", bits=5),
        ToyLayer(20, (1, 1), source="mean", scheme="uniform", bits=11, signed=True),
        ToyLayer(kind="mul", source="both", source2="layer8", scheme="knq", bits=5, pool=POOL2),
        ToyLayer(7, (5, 5), kind="fc"),
    ]
    return Toy((3, 12, 13), layers, images=3)


def normalised(channels: int, size: int) -> Toy:
    """LRN on channel counts around the edges of tiles, signed values."""
    layers = [
        ToyLayer(channels, scheme="uniform", bits=9, signed=True),
        ToyLayer(kind="lrn", lrn_size=size, scheme="enq", bits=8, variant="round", signed=True),
        ToyLayer(9, (1, 1), scheme="enq", bits=3, variant="round"),
        ToyLayer(3, (1, 1)),
    ]
    return Toy((4, 6, 5), layers, images=1, seed=channels + size)


def cases() -> Iterator[Any]:
    """(toy, options of codegen, options of csim), with a name."""
    large = "PART=XC7Z045"

    def case(toy: Toy, name: str, options: str, *csim_options: str) -> Any:
        # exact types with sanitizers compile for a minute; the fuzzer has exact types without
        more = name in ("residual", "inception") or csim_options == EXACT
        slow = pytest.mark.slow if csim_options and more else ()
        return pytest.param(toy, options.split(), csim_options, id=f"{name} {options}", marks=slow)

    yield case(mixed(), "mixed", "SIMD=8 PE=24")
    yield case(mixed(), "mixed", "SIMD=16 PE=8")
    yield case(grouped(), "grouped", f"{large} SIMD=16")
    for simd, pe, pixels in ((24, 8, 1), (24, 8, 2), (40, 8, 2), (8, 8, 8), (72, 8, 1)):
        yield case(awkward(), "awkward", f"SIMD={simd} PE={pe} PIXELS={pixels} {large}")
    yield case(awkward(), "awkward", f"SIMD=24 PE=16 PIXELS=2 {large}", *EXACT)
    for network in (residual, inception, gated):
        yield case(network(), network.__name__, f"SIMD=8 PE=24 {large}", "SANITIZE=1")
        yield case(network(), network.__name__, f"SIMD=16 PE=32 {large}")
        yield case(network(), network.__name__, large, *EXACT)
    for channels, size in ((7, 3), (8, 5), (24, 3), (25, 17)):  # around the edges of tiles
        name = f"{channels} channels, LRN of {size}"
        yield case(normalised(channels, size), name, f"PE=32 {large}")


@needs_compiler
@pytest.mark.parametrize(("toy", "options", "csim_options"), list(cases()))
def test_bit_exact(
    generated: Callable[..., Path], toy: Toy, options: list[str], csim_options: tuple[str, ...]
) -> None:
    report = simulated(generated(toy, *options), *csim_options, layers=len(toy.layers))
    assert report["csim"]["accuracy"]["same_logits"] == toy.images
    for option in options:
        name, _, value = option.lower().partition("=")
        assert name == "part" or report["engine"][name] == int(value)


@needs_compiler
@pytest.mark.parametrize("batch", [2, 256])
def test_chunks_and_batches(
    generated: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(planner, "WEIGHT_ROWS", (40,))
    monkeypatch.setattr(planner, "MAX_BATCH", batch)
    report = simulated(generated(chunked(), "PE=16"), layers=4)
    assert report["engine"]["batch"] == min(batch, 4)
    assert max(layer["chunks"] for layer in report["layers"]) > 2


@pytest.mark.slow
@needs_compiler
def test_exact_types_and_sanitizers_agree(generated: Callable[..., Path]) -> None:
    build = generated(Toy((3, 14, 13), mixed_layers(), weight_bits=16, images=1))
    simulated(build, layers=6)
    logits = (build / "csim" / "logits.bin").read_bytes()
    assert simulated(build, *EXACT, layers=6)["csim"]["types"] == "exact"
    assert (build / "csim" / "logits.bin").read_bytes() == logits
    simulated(build, *EXACT, "FIRST_LAYERS=2", layers=2)


@needs_compiler
def test_program_is_built_once(tmp_path: Path) -> None:
    (tmp_path / "hls").mkdir()
    (tmp_path / "hls" / "network.hpp").write_text("const int STATUS = 0;\n")
    (tmp_path / "hls" / "main.cpp").write_text(
        '#include "network.hpp"\nint main() {\n  return STATUS;\n}\n'
    )
    options = Options(out=tmp_path)
    program = csim.compile_bench(options)
    before = program.stat().st_mtime_ns
    assert csim.compile_bench(options).stat().st_mtime_ns == before
    with (tmp_path / "hls" / "network.hpp").open("a") as file:
        file.write("\n")
    assert csim.compile_bench(options).stat().st_mtime_ns > before


def test_missing_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        UserError, match=r"^the C\+\+ compiler no-such-compiler must exist on the PATH .* set CXX"
    ):
        find_compiler()


def test_missing_headers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XILINX_HLS", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"^ap_int\.h and hls_stream\.h must exist, none in .*include"
    ):
        find_headers()


def test_vitis_headers_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "include"
    folder.mkdir()
    for name in ("ap_int.h", "hls_stream.h"):
        (folder / name).touch()
    monkeypatch.setenv("XILINX_HLS", str(tmp_path))
    assert find_headers() == folder
