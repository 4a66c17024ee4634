# SPDX-License-Identifier: Apache-2.0
"""One changed bit of the generated parameters fails the C-simulation, with the layer's name.

Random bits: fourteen of weights.bin, three of each layer of program.bin and all bytes of its
header; then one of each part of a layer with a weight codebook: codebook, biases, indices of either
port.
"""

import random
import re
import zlib
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest

from nuq.codegen.design.rows import FIELDS
from nuq.codegen.emit import csim
from nuq.formats.commands import main
from nuq.formats.errors import UserError
from nuq.formats.program import (
    HEADER_FIELDS,
    HEADER_WORDS,
    INDEX_WORDS,
    PROGRAM,
    Program,
    Record,
    read_program,
)
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
    """Runs csim on a build, compiled without optimisation.

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
    checks = (build / "golden" / "checks.txt").read_text().splitlines()[1:]
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


def test_program_bits(build: Path, named: Named) -> None:
    """Bits of every layer's index, row and tables; each is found, and its layer named."""
    rng = random.Random(SEED)
    program = read_program(build / "params")
    path = build / "params" / PROGRAM
    clean = path.read_bytes()
    assert named(build) == (0, "")
    row_bytes = 4 * len(FIELDS)
    for layer in range(program.layers):
        index = HEADER_WORDS + INDEX_WORDS * layer
        first = 8 * int(program.entry(layer)[0])
        end = first + program.record(layer).nbytes
        places = [8 * index + rng.randrange(16), rng.randrange(first, first + row_bytes)]
        if end - first > row_bytes + 8:
            places.append(rng.randrange(first + row_bytes, end))
        for place in places:
            flip(path, clean, place, rng.randrange(8))
            assert named(build) == (1, f"layer{layer}"), f"byte {place}, seed {SEED}"


def test_header_of_a_program(build: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = build / "params" / PROGRAM
    clean = path.read_bytes()
    for place in range(0, 8 * HEADER_WORDS, 3):
        flip(path, clean, place, place % 8)
        capfd.readouterr()
        assert main(["csim", f"OUT={build}"]) == 2
        assert "MISMATCH in the header" in capfd.readouterr().err
        with pytest.raises(UserError, match=r"must be .*run `nuq codegen`|its header differs"):
            read_program(path.parent)
    path.write_bytes(clean)
    other = Program(np.frombuffer(clean, "<u8"))
    records = [
        Record(other.record(k).view("<i4").tolist(), (), bool(other.entry(k)[1] & 1))
        for k in range(other.layers)
    ]
    columns = Program.of(other.header("engine_id") ^ 1, 0, records).words.copy()
    head = columns[:HEADER_WORDS].view("<u4")
    head[HEADER_FIELDS.index("columns")] = other.header("columns")
    head[-1] = zlib.crc32(head[:-1].tobytes())
    columns.tofile(path)
    capfd.readouterr()
    assert main(["csim", f"OUT={build}"]) == 2
    assert "must be a program of this engine" in capfd.readouterr().err


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
