# SPDX-License-Identifier: Apache-2.0
"""Designs compile as Vitis HLS would see them, and what only its front end sees is found."""

import sys

import pytest

from nuq.codegen.hls_check.check import check_design, check_files
from nuq.codegen.hls_check.front_end import STUBS
from nuq.formats.commands import main
from nuq.formats.errors import UserError
from tests.checkout import execute, needs_clang
from tests.hls.compiler import compile_text
from tests.hls.designs import DESIGNS, compiled, rendered

pytestmark = needs_clang

# What g++ and the rules do not see: file, old, new, the line that is named, and what is said of it.
SEEDED = [
    ("accelerator.cpp", "instances = run_layer ", "instances = layer_region<Network> ",
     "weight_loader.hpp:", "one port per section, needed at accelerator.cpp:"),
    ("accelerator.cpp", "instances = run_layer ", "instances = run_layers ",
     "accelerator.cpp:", "use of undeclared identifier 'run_layers'"),
    ("packing.hpp", "variable = gear complete", "variable = gears complete",
     "packing.hpp:", "use of undeclared identifier 'gears'"),
    ("engine.hpp", "variable = words_in depth = WORDS_DEPTH", "variable = words_in depth = images",
     "engine.hpp:", "not an integral constant expression"),
    ("fifo.hpp", '#include "hls_stream.h"', '#include "hls_streams.h"',
     "fifo.hpp:", "'hls_streams.h' file not found"),
    ("memory.hpp", "if (job.keep)", "#ifdef __SYNTHESIS__\n      if (job.kept)\n#endif\n",
     "memory.hpp:", "no member named 'kept'"),
]  # fmt: skip


@pytest.mark.parametrize("name", DESIGNS)
def test_design_compiles(name):
    assert compiled(name)[0] == []


@pytest.mark.parametrize(("file", "old", "new", "place", "words"), SEEDED)
def test_what_only_the_front_end_sees(file, old, new, place, words):
    texts = dict(rendered("small"))
    assert old in texts[file]
    texts[file] = texts[file].replace(old, new, 1)
    found = [str(finding) for finding in check_design(texts)[0]]
    assert any(hit.startswith(place) and words in hit and ": front-end: " in hit for hit in found)


def test_folder_with_a_design_is_compiled(tmp_path, capsys):
    for name, text in rendered("small").items():
        text = text.replace("instances = run_layer ", "instances = layer_region<Network> ")
        (tmp_path / name).write_text(text)
    assert [finding.file for finding in check_files([tmp_path])[0]] == [
        str(tmp_path / "weight_loader.hpp")
    ]
    assert main(["hls-check", f"FILES={tmp_path}"]) == 1
    assert "one port per section" in capsys.readouterr().out


def test_missing_clang_is_one_sentence(monkeypatch):
    monkeypatch.setattr("nuq.codegen.hls_check.front_end.find_spec", lambda _: None)
    with pytest.raises(UserError, match="must have clang: `pip install ziglang`"):
        check_design(rendered("small"))


# Widths and signs of results, which the timing of a design depends on.
WIDTHS = """
#include "ap_int.h"
#include <utility>
template <int W> std::true_type is_signed_(ap_int<W>);
template <int W> std::false_type is_signed_(ap_uint<W>);
#define is_signed(expression) decltype(is_signed_(expression))::value
#define SAME(expression, bits, negative) \\
  static_assert(std::decay<decltype(expression)>::type::width == bits, #expression); \
  static_assert(is_signed(expression) == negative, #expression);
#define VALUE(type) std::declval<type>()
typedef ap_uint<5> u5; typedef ap_uint<9> u9; typedef ap_int<7> s7;
SAME(VALUE(u5) + VALUE(u9), 10, false)  SAME(VALUE(u5) + VALUE(s7), 8, true)
SAME(VALUE(u9) + VALUE(s7), 11, true)   SAME(VALUE(u5) - VALUE(u9), 10, true)
SAME(VALUE(u5) * VALUE(s7), 12, true)   SAME(VALUE(u5) * VALUE(u9), 14, false)
SAME(VALUE(u9) / VALUE(s7), 10, true)   SAME(VALUE(s7) / VALUE(u9), 7, true)
SAME(VALUE(s7) % VALUE(u5), 6, true)    SAME(VALUE(u9) % VALUE(u5), 5, false)
SAME(VALUE(u9) & VALUE(s7), 10, true)   SAME(VALUE(u5) | VALUE(u9), 9, false)
SAME(VALUE(u5) + VALUE(int), 33, true)  SAME(VALUE(u5) << 2, 5, false)
SAME(VALUE(s7) >> VALUE(u5), 7, true)   SAME(-VALUE(u5), 6, true)
static_assert(sizeof(s7) == 1 && sizeof(u9) == 2 && sizeof(ap_uint<65>) == 16, "sizes");
"""


def test_widths_are_those_of_the_vendors_headers(tmp_path):
    assert compile_text(tmp_path, WIDTHS, "-fsyntax-only") == ""
    flags = ("-std=c++14", "-w", "-S", "-o", "source.s", "-isystem", str(STUBS), "source.cpp")
    done = execute(sys.executable, "-m", "ziglang", "c++", *flags, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
