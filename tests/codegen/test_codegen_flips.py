# SPDX-License-Identifier: Apache-2.0
"""One changed bit of the generated parameters fails the C-simulation, with the layer's name.

Twenty random bits: fourteen of weights.bin, two each of the layer table, centroids and thresholds;
then one of each part of a layer with a weight codebook: codebook, biases, indices of either port.
"""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from codegen.emit import csim
from formats.commands import main
from tests.checkout import needs_compiler
from tests.toys import Toy, ToyLayer, mixed_layers

pytestmark = needs_compiler

SEED = 20
NAMED = re.compile(r"MISMATCH in layer (\w+)")


@pytest.fixture
def build(make_toy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A generated network, compiled without optimisation: each table flip compiles again."""
    folder = make_toy(Toy(in_shape=(3, 14, 13), layers=mixed_layers(), images=1))
    # through one port, layers follow each other in weights.bin
    assert main(["codegen", f"OUT={folder}", "WEIGHT_PORTS=1"]) == 0
    monkeypatch.setattr(csim, "FLAGS", ("-std=c++14", "-O0"))
    return folder


def run(build: Path, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit status of csim and the first layer that it names."""
    capfd.readouterr()
    status = main(["csim", f"OUT={build}"])
    found = NAMED.search(capfd.readouterr().out)
    return status, found.group(1) if found else ""


def test_weight_bits(build: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(SEED)
    checks = (build / "golden" / "checks.txt").read_text().split("\n")[:-1]
    ends = []
    for line in checks:
        ends.append((ends[-1] if ends else 0) + 8 * int(line.split()[1]))
    path = build / "params" / "weights.bin"
    clean = path.read_bytes()
    assert len(clean) == ends[-1]
    assert run(build, capfd) == (0, "")
    for _ in range(14):
        layer = rng.randrange(len(ends))
        position = rng.randrange(ends[layer - 1] if layer else 0, ends[layer])
        data = bytearray(clean)
        data[position] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        assert run(build, capfd) == (1, f"layer{layer}"), f"byte {position}, seed {SEED}"


@pytest.mark.parametrize(
    "table", ["LayerDesc LAYER_TABLE", "int32_t CENTROID", "int32_t THRESHOLD"]
)
def test_table_bits(build: Path, capfd: pytest.CaptureFixture[str], table: str) -> None:
    rng = random.Random(SEED)
    path = build / "hls" / "tables.hpp"
    clean = path.read_text()
    for _ in range(2):
        lines = clean.split("\n")
        first = next(i for i, line in enumerate(lines) if f"const {table}[" in line) + 1
        end = next(i for i in range(first, len(lines)) if lines[i].startswith("};"))
        index = rng.randrange(first, end)
        values, name = (
            lines[index].split("}")[0].strip(" {").split(","),
            lines[index].split("// ")[1],
        )
        column = rng.randrange(1, 8)  # the first table has 8 levels, the rest of its row is unused
        values[column] = str(int(values[column]) ^ (1 << rng.randrange(5)))
        lines[index] = f"    {{{', '.join(values)}}},  // {name}"
        path.write_text("\n".join(lines))
        status, named = run(build, capfd)
        assert status != 0 and named == name, f"{table} column {column}, seed {SEED}"


def test_codebook_bits(
    make_toy: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    layers = [ToyLayer(24, index_bits=4), ToyLayer(16, (1, 1), index_bits=6), ToyLayer(8, (1, 1))]
    folder = make_toy(Toy(in_shape=(8, 6, 5), layers=layers, images=1))
    command = ["codegen", f"OUT={folder}", "WEIGHT_PORTS=2"]
    assert main(command) == 0
    monkeypatch.setattr(csim, "FLAGS", ("-std=c++14", "-O0"))
    assert run(folder, capfd) == (0, "")
    layer = json.loads((folder / "design.json").read_text())["layers"][1]
    stored = json.loads((folder / "report.json").read_text())["layers"][1]["weights"]
    path = folder / "params" / "weights.bin"
    clean = path.read_bytes()
    start, section = 8 * layer["weight_address"], len(clean) // 2
    biases = start + 8 * stored["table_entries"]
    assert stored["table_entries"] == 64
    for place in (start, start + 8 * 63 + 1, biases, biases + 8 * 6 + 3, section + biases + 49):
        data = bytearray(clean)
        data[place] ^= 4
        path.write_bytes(data)
        assert run(folder, capfd) == (1, "layer1"), place
