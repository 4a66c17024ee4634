# SPDX-License-Identifier: Apache-2.0
"""One changed bit of the generated parameters fails the C-simulation, with the layer's name.

Twenty random bits: fourteen of weights.bin, two each of the layer table, centroids and thresholds;
then one of each part of a layer with a weight codebook: codebook, biases, indices of either port.
"""

import random
import re
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import pytest

from codegen.emit import csim
from formats.commands import main
from tests.checkout import needs_compiler
from tests.toys import Toy, ToyLayer, mixed_layers, read_json

pytestmark = needs_compiler

SEED = 20
NAMED = re.compile(r"MISMATCH in layer (\w+)")


Named = Callable[[Path], tuple[int, str]]


@pytest.fixture
def build(generated: Callable[..., Path]) -> Path:
    """Layers that follow each other in weights.bin, as they come through one port."""
    return generated(Toy((3, 14, 13), mixed_layers(), images=1), "WEIGHT_PORTS=1")


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Named:
    """Runs csim on a build, compiled without optimisation as each flip of a table compiles again.

    It returns the exit status and the first layer that csim names.
    """
    monkeypatch.setattr(csim, "FLAGS", ("-std=c++14", "-O0"))

    def run(build: Path) -> tuple[int, str]:
        capfd.readouterr()
        status = main(["csim", f"OUT={build}"])
        found = NAMED.search(capfd.readouterr().out)
        return status, found.group(1) if found else ""

    return run


def flip(path: Path, clean: bytes, place: int, bit: int) -> None:
    """Write a file with one bit changed."""
    data = bytearray(clean)
    data[place] ^= 1 << bit
    path.write_bytes(data)


def test_weight_bits(build: Path, named: Named) -> None:
    rng = random.Random(SEED)
    checks = (build / "golden" / "checks.txt").read_text().splitlines()
    ends = list(accumulate(8 * int(line.split()[1]) for line in checks))
    path = build / "params" / "weights.bin"
    clean = path.read_bytes()
    assert len(clean) == ends[-1]
    assert named(build) == (0, "")
    for _ in range(14):
        layer = rng.randrange(len(ends))
        position = rng.randrange(ends[layer - 1] if layer else 0, ends[layer])
        flip(path, clean, position, rng.randrange(8))
        assert named(build) == (1, f"layer{layer}"), f"byte {position}, seed {SEED}"


@pytest.mark.parametrize(
    "table", ["LayerDesc LAYER_TABLE", "int32_t CENTROID", "int32_t THRESHOLD"]
)
def test_table_bits(build: Path, named: Named, table: str) -> None:
    rng = random.Random(SEED)
    path = build / "hls" / "tables.hpp"
    clean = path.read_text()
    for _ in range(2):
        lines = clean.split("\n")
        first = next(i for i, line in enumerate(lines) if f"const {table}[" in line) + 1
        end = next(i for i in range(first, len(lines)) if lines[i].startswith("};"))
        index = rng.randrange(first, end)
        values = lines[index].split("}")[0].strip(" {").split(",")
        name = lines[index].split("// ")[1]
        column = rng.randrange(1, 8)  # the first table has 8 levels, the rest of its row is unused
        values[column] = str(int(values[column]) ^ (1 << rng.randrange(5)))
        lines[index] = f"    {{{', '.join(values)}}},  // {name}"
        path.write_text("\n".join(lines))
        status, layer = named(build)
        assert status != 0 and layer == name, f"{table} column {column}, seed {SEED}"


def test_codebook_bits(generated: Callable[..., Path], named: Named) -> None:
    layers = [ToyLayer(24, index_bits=4), ToyLayer(16, (1, 1), index_bits=6), ToyLayer(8, (1, 1))]
    build = generated(Toy(in_shape=(8, 6, 5), layers=layers, images=1), "WEIGHT_PORTS=2")
    assert named(build) == (0, "")
    entries = read_json(build)["layers"][1]["weights"]["table_entries"]
    path = build / "params" / "weights.bin"
    clean = path.read_bytes()
    start = 8 * read_json(build, "design")["layers"][1]["weight_address"]
    biases, section = start + 8 * entries, len(clean) // 2
    assert entries == 64
    for place in (start, start + 8 * 63 + 1, biases, biases + 8 * 6 + 3, section + biases + 49):
        flip(path, clean, place, 2)
        assert named(build) == (1, "layer1"), place
