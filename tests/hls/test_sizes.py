# SPDX-License-Identifier: Apache-2.0
"""Sizes that do not fit each other do not compile, and the compiler says the rule that they break.

One translation unit instantiates the engine for a structure of constants with one wrong size each.
"""

import re

import pytest

from nuq.codegen.emit.render import TEMPLATES, headers
from tests.fuzz.work import find_build
from tests.hls.compiler import compile_text, front_end_messages

# What is wrong, and the beginning of the sentence that says so.
WRONG = {
    "SIMD = 12": "SIMD must be a multiple of 8",
    "G = 2": "G must be SIMD / 8",
    "PE = 20": "PE must be a multiple of 8",
    "PACK_PLANES = 4": "PACK_PLANES must be PE / 8",
    "QK_UNITS = 5": "PE must be a multiple of QK_UNITS",
    "PE = 16, QK_UNITS = 4": "PE must be 24 or more for a normalisation",
    "FACTOR_UNITS = 5": "FACTOR_UNITS must divide PE and be QK_UNITS at most",
    "KERNEL_ROWS = 9": "KERNEL_ROWS must be SIMD and WINDOW at most",
    "LRN_REACH = 9": "LRN_REACH must be 8 at most",
    "SIMD = 4": "PE * SIMD must be a multiple of 64",
    "ROW_WORDS = 47": "ROW_WORDS must hold a weight of the largest width",
    "PE = 72, PACKED_BITS = 15": "PE weights of an input channel must have 1024 bits at most",
    "SHARED = 2": "PE must be a multiple of 16",
    "SHARED = 2, PE = 32, PAIR_BITS = 8": "PACKED_BITS must hold two weights",
    "SHARED = 2, PE = 16": "a multiplier's larger operand must hold",
    "WEIGHT_PORTS = 5": "ROW_WORDS must be a multiple of WEIGHT_PORTS",
    "WEIGHT_PORTS = 2": "one port per section",
    "BIAS_WORDS = 11": "BIAS_WORDS must hold PE biases",
    "SCALE_WORDS = 2": "SCALE_WORDS must hold PE weight scales",
    "TABLE_ENTRIES = 100": "TABLE_ENTRIES must be a power of two",
    "int weight_width": "the largest width, the last of weight_width, must be 16",
    "KNQ_LEVELS = 12": "KNQ_LEVELS must be a power of two",
    "KNQ_LEVELS = 1 << 17": "KNQ_LEVELS must be 2^CODE_BITS at most",
    "READ_AHEAD = 3": "READ_AHEAD must be a power of two",
    "TAP_ROWS = 255": "every row of weights must have its taps",
    "LINE_LOW_BITS = 0": "LINE_LOW_BITS must be from 1 to CODE_BITS",
    "LINE_LOW_BITS = 9": "low_t must hold LINE_LOW_BITS bits",
    "CODE_BITS = 21": "high_t must hold CODE_BITS - LINE_LOW_BITS bits",
    "LINE_HIGH_BLOCKS = 4097": "LINE_HIGH_BLOCKS must be LINE_BLOCKS at most",
    "POOL_WIDTH = 65": "POOL_WIDTH must be MAX_WIDTH at most",
    "int in_width": "in_gear_t must hold a block of the largest width",
    "int out_width": "out_gear_t must hold a block of the largest width",
    "FACTOR_BITS = 16": "FACTOR_BITS must hold a value of VALUE_BITS",
    "VALUE_BITS = 33": "VALUE_BITS must be 32 at most",
    "VALUE_BITS = 34": "acc_t must hold two values of VALUE_BITS",
    "VALUE_BITS = 48": "tree_t must hold a sum of SIMD products",
    "uint32_t bus_t": "a bus word must take 8 bytes",
    "uint64_t in_gear_t": "in_gear_t must be wider than a word",
    "uint64_t out_gear_t": "out_gear_t must be wider than a word",
    "int32_t wide_t": "wide_t must hold an acc_t",
    "__int128 acc_t": "acc_t must fit a bus word",
}
CONSTANTS = {
    "WORD_BYTES = 8": ("WORD_BYTES = 4", "a word must have 8 bits in each of its bytes"),
    "LRN_POINTS = 32": ("LRN_POINTS = 33", "LRN_POINTS must be 2^LRN_POINTS_LOG2"),
    "LRN_ENTRIES = 1025": ("LRN_ENTRIES = 1024", "LRN_ENTRIES must reach 2^36"),
}


STREAM = "the depth of a stream must be 1 or more"


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What the engine fails with, for each structure; nothing for "", where all sizes are right."""
    text = '#include "network.hpp"\n#include "engine.hpp"\n'
    for number, change in enumerate(["", *WRONG]):
        kind = "static const int32_t" if "=" in change else "typedef"
        if change.startswith("int "):
            kind, change = "static constexpr", f"{change}(int) {{ return 17; }}"
        wrong, bus = f"Wrong{number}", f"Wrong{number}::bus_t*"
        text += f"""
struct {wrong} : Network {{ {f"{kind} {change};" if change else ""} }};
template void layer_region<{wrong}>(MemoryPort<{wrong}>, MemoryPort<{wrong}>, MemoryPort<{wrong}>,
    {bus}, {bus}, const RecordPlace, int32_t, uint64_t*, MemoryPort<{wrong}>);
"""
    folder = tmp_path_factory.mktemp("sizes")
    for name, content in find_build("small").files[1].items():
        (folder / name).write_text(content)
    sentences: dict[str, set[str]] = {change: set() for change in ["", *WRONG]}
    sentence = ""
    for line in front_end_messages(folder, text).splitlines():
        if failed := re.search(
            r"static assertion failed(?: due to requirement '.*?')?: (.*)", line
        ):
            sentence = failed[1]
        elif "error:" in line:
            sentence = line  # another error has a structure, too, whose sentence it must not be
        if sentence and (named := re.search(r"Wrong(\d+)", line)):
            sentences[[*sentences][int(named[1])]].add(sentence)
            sentence = ""
    return sentences


@pytest.mark.parametrize("change", WRONG)
def test_wrong_size_does_not_compile(change, failures):
    assert any(text.startswith(WRONG[change]) for text in failures[change]), failures[change]


def test_right_sizes_compile(failures):
    assert failures[""] == set()


@pytest.mark.parametrize("constant", CONSTANTS)
def test_wrong_constant_does_not_compile(constant, tmp_path):
    layer = headers()["layer.hpp"]
    wrong, sentence = CONSTANTS[constant]
    assert layer.count(f"{constant};") == 1
    wrong_layer = layer.replace(constant, wrong)
    assert sentence in compile_text(tmp_path, wrong_layer, "-fsyntax-only")
    assert compile_text(tmp_path, layer, "-fsyntax-only") == ""


def test_stream_without_room_does_not_compile(tmp_path):
    text = '#include "fifo.hpp"\nStream<int, 0> pipe("pipe");\n'
    assert STREAM in compile_text(tmp_path, text, "-fsyntax-only")


def test_every_assertion_has_a_wrong_size():
    """As many sentences in the sources as there are sizes that break them."""
    sources = "".join(path.read_text() for path in TEMPLATES.rglob("*.hpp"))
    sentences = re.findall(r'static_assert\([^;]*?"([^"]*)"(?=\);)', sources)
    expected = [STREAM, *WRONG.values(), *(sentence for _, sentence in CONSTANTS.values())]
    assert [s for s in sentences if not any(s.startswith(text) for text in expected)] == []
