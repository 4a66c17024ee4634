# SPDX-License-Identifier: Apache-2.0
"""The HLS subset: the sources keep to it, and one seeded violation of every rule is found."""

import re

import pytest

from nuq.codegen.emit.render import TEMPLATES, headers, render_all
from nuq.codegen.hls_check import allowed
from nuq.codegen.hls_check.check import check_files, check_texts, find_files
from nuq.codegen.hls_check.lexer import lex, plain_template
from nuq.codegen.hls_check.program import RULES
from nuq.codegen.hls_check.syntax import parse
from nuq.formats.commands import main
from tests.checkout import ROOT, error_line, python
from tests.networks import planned

GOOD = """// SPDX-License-Identifier: Apache-2.0
// A source that keeps to all rules,
// for one violation of each.
#ifndef GOOD_HPP
#define GOOD_HPP
#include <cstdint>
#include "hls_stream.h"
template <class C>
void produce(const int32_t in[C::N], Fifo<uint8_t>& out, int32_t table[C::N]) {
produce_i:
  for (uint16_t i = 0; i < C::N; i++) {
#pragma HLS PIPELINE II = 1  // one a cycle
    out.write(in[i]);
    table[i] = 2 * in[i];
  }
}

template <class C>
int32_t sum(const int32_t values[C::N], int32_t count) {
  int32_t total = 0;
store_counters:
  for (int32_t i = 0; i < count; i++) {
#pragma HLS PIPELINE off  // small before fast
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::N
    total += values[i];
  }
  return total;
}

template <class C>
void consume(Fifo<uint8_t>& in, const int32_t table[C::N], int32_t* out) {
  *out = in.read() + sum<C>(table, C::N);
}

typedef int32_t total_t;
struct Pair {
  uint8_t low, high;
};

struct Corner {
  void move() {
    row++;
  }
  int32_t row;
  uint8_t column;
};
inline void raise(int32_t& row) {
  row++;
}

template <class C>
struct Lookup {
  void load(int32_t first) {
    item_[0] = first;
  }
  int32_t at(uint8_t place, uint8_t other) {
#pragma HLS ARRAY_PARTITION variable = item_ complete  // registers
    return pick<C>(item_, place) + spare_[place];
  }
  int32_t item_[C::N], spare_[C::N];
};
template <class C>
int32_t pick(const int32_t items[C::N], uint8_t place) {
  return items[place & 3];
}

template <class C>
void drop(Fifo<uint8_t>& from, Digit<uint8_t>& turn) {
  if (turn.last) from.read();
}

template <class C>
void steps(Fifo<uint8_t>& in, Fifo<uint8_t>& out) {
  Corner corner = {0, 0};
  Digit<uint8_t> turn;
  uint8_t sum = 0;
  Pair rows[C::N];
#pragma HLS AGGREGATE variable = rows compact = bit  // one word
  uint8_t history[C::N];
#pragma HLS ARRAY_PARTITION variable = history complete  // registers
steps_i:
  for (uint8_t i = 0; i < C::N; i++) {
#pragma HLS PIPELINE II = 1  // one a cycle
    const uint8_t item = in.read();
    history[item & 3] = item;
    corner.column = corner.row + corner.column;
    turn.step();
    const Pair pair = {sum, sum};
    rows[item & 3] = pair;
    sum++;
  steps_j:
    for (int j = 0; j < C::N; j++) {
#pragma HLS UNROLL  // registers
      const int next = (j + 1) % C::N;
      history[j] = history[next];
    }
    out.write(history[0]);
  }
}

template <class C>
void top(const int32_t in[C::N], int32_t* out) {
#pragma HLS DATAFLOW  // both at once
  Stream<uint8_t, C::N> pipe("pipe");
#pragma HLS STREAM variable = pipe depth = C::N  // hides the latency
  int32_t table[C::N];
  PROCESS(produce<C>, in, pipe, table);
  consume<C>(pipe, table, out);
}

template <class C>
void repeat(const int32_t in[C::N], int32_t* out, uint32_t limit) {
repeat_i:
  for (uint32_t i = 0; i < limit; i++) {
#pragma HLS DATAFLOW  // both at once
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 4
    Stream<uint8_t, 2> pipe("pipe");
    int32_t table[C::N];
    PROCESS(produce<C>, in, pipe, table);
    consume<C>(pipe, table, out);
  }
}
#ifndef __SYNTHESIS__
#include <iostream>
inline void show(int v) { std::cout << v; }
#endif
#endif
"""

# rule, a word of the message, and what is put in the place of what in GOOD
SEEDED = [
    ("head", "licence and the purpose", "// SPDX-License-Identifier: Apache-2.0\n", ""),
    ("head", "purpose must come first", "// for one violation of each.\n", ""),
    ("head", "#ifndef GOOD_HPP must guard", "#ifndef GOOD_HPP", "#ifndef GOOD"),
    ("heap", "new", "int32_t total = 0;", "int32_t total = 0; int32_t* p = new int32_t[4];"),
    ("heap", "malloc", "int32_t total = 0;", "int32_t total = 0; use(malloc(4));"),
    ("heap", "std::vector", "int32_t total = 0;", "int32_t total = 0; std::vector<int> v;"),
    ("heap", "std::max", "int32_t total = 0;", "int32_t total = std::max(0, 0);"),
    ("recursion", "sum calls itself", "total += values[i];", "total += sum<C>(values, i);"),
    ("loop-label", "must have a label", "store_counters:\n", ""),
    ("loop-label", "label store_counters must occur once", "produce_i:", "store_counters:"),
    ("loop-pragma", "loop produce_i must begin", "#pragma HLS PIPELINE II = 1", ""),
    ("pragma", "must begin its line", "#pragma HLS PIPELINE", "  #pragma HLS PIPELINE"),
    ("pragma", "PIPELIN is not", "HLS PIPELINE", "HLS PIPELIN"),
    ("pragma", "PIPELINE has no option I", "II = 1", "I = 1"),
    ("pragma", "PIPELINE has no word now", "PIPELINE II = 1", "PIPELINE now"),
    ("pragma", "PIPELINE must have its reason", "II = 1  // one a cycle", "II = 1"),
    ("pragma", "STREAM names pip,", "variable = pipe", "variable = pip"),
    ("pragma", "STREAM must have variable", "STREAM variable = pipe", "STREAM"),
    ("pragma", "not an HLS pragma", "#pragma HLS DATAFLOW", "#pragma GCC unroll 4"),
    ("dynamic", "float cannot", "int32_t total = 0;", "int32_t total = 0; float half = 0.5;"),
    ("dynamic", "double cannot", "int32_t total = 0;", "int32_t total = 0; double half = 0.5;"),
    ("dynamic", "virtual", "template", "struct S { virtual int f(); };\ntemplate"),
    ("dynamic", "function pointer", "int32_t total = 0;", "int32_t total = 0; int (*f)(int);"),
    ("dynamic", "throw", "return total;", "if (total < 0) throw total;\n  return total;"),
    ("dynamic", "typeid", "return total;", "use(typeid(total));\n  return total;"),
    ("loop-bound", "constant bound or", "#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::N\n", ""),
    ("loop-bound", "must be constant, not count", "max = C::N", "max = count"),
    ("loop-bound", "loop steps_j must have a constant bound: it is unrolled",
     "for (int j = 0; j < C::N; j++) {\n",
     "for (int j = 0; j < sum; j++) {\n#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::N\n"),
    ("loop-bound", "loop steps_j must have a constant bound: it is unrolled",
     "for (int j = 0; j < C::N; j++) {\n",
     "for (int j = 0; j < C::N; j += sum) {\n#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::N\n"),
    ("loop-bound", "loop wait must be a for loop",
     "  return total;", "wait:\n  while (total < 3) {\n    total++;\n  }\n  return total;"),
    ("array-size", "the size count", "int32_t total = 0;", "int32_t total = 0, line[count];"),
    ("pointer", "pointer to a pointer", "int32_t* out) {\n#pragma", "int32_t** out) {\n#pragma"),
    ("system", "printf", "return total;", 'printf("%d", total);\n  return total;'),
    ("system", "iostream", "#ifndef __SYNTHESIS__\n", "#ifdef __SYNTHESIS__\n"),
    ("dataflow", "a if statement",
     "  PROCESS(produce<C>, in, pipe, table);",
     "  if (in[0]) PROCESS(produce<C>, in, pipe, table);"),
    ("dataflow", "declarations and calls only",
     "  PROCESS(produce<C>, in, pipe, table);",
     "  table[0] = 1;\n  PROCESS(produce<C>, in, pipe, table);"),
    ("dataflow", "reads channel pipe, not 2",
     "(pipe, table, out);", "(pipe, table, out);\n  consume<C>(pipe, table, out);"),
    ("dataflow", "writes channel table, not 2",
     "  consume<C>(pipe", "  produce<C>(in, other, table);\n  consume<C>(pipe"),
    ("dataflow", "reads channel spare, not 0", 'pipe("pipe")', 'pipe("pipe"), spare("spare")'),
    ("dataflow", "written before it is read",
     "  PROCESS(produce<C>, in, pipe, table);\n  consume<C>(pipe, table, out);",
     "  consume<C>(pipe, table, out);\n  PROCESS(produce<C>, in, pipe, table);"),
    ("dataflow", "unknown must write or read",
     "  consume<C>(pipe", "  unknown(table);\n  consume<C>(pipe"),
    ("dataflow", "one depth, not C::N in its type and 4", "depth = C::N", "depth = 4"),
    ("dataflow", "one depth, not 3 in its type and C::N", "t, C::N> pipe", "t, 3> pipe"),
    ("dataflow", "one depth, not C::N in its type and 2", "#pragma HLS STREAM", "//"),
    ("dataflow", "must be an argument by itself", "(pipe, table, out)", "(pipe, table + 1, out)"),
    ("dataflow", "from 0 by 1", "i = 0; i < limit", "i = 1; i < limit"),
    ("dataflow", "from 0 by 1", "i < limit; i++", "i < limit; i += 2"),
    ("dataflow", "from 0 by 1", "i < limit; i++", "i <= limit; i++"),
    ("dataflow", "from 0 by 1", "for (uint32_t i = 0; i < limit; i++)", "while (limit < 4)"),
    ("dataflow", "be a constant or an unsigned parameter", "uint32_t limit", "int32_t limit"),
    ("dataflow", "be a constant or an unsigned parameter", "i < limit; i++", "i < in[0]; i++"),
    ("dataflow", "unsigned counter, not int32_t i", "uint32_t i = 0; i < lim",
     "int32_t i = 0; i < lim"),
    ("dataflow", "the only statement of repeat", "repeat_i:", "*out = 0;\nrepeat_i:"),
    ("dataflow", "declarations and calls only",
     "  int32_t table[C::N];\n  PRO", "  int32_t table[C::N], total = in[0];\n  PRO"),
    ("dataflow", "in[0] must be a variable of its own", "(produce<C>, in,", "(produce<C>, in[0],"),
    ("dataflow", "out must be read or written through the region, not both (by consume)",
     "  *out = in", "  *out += in"),
    ("dataflow", "memory out must be an argument of one process, not of produce and consume",
     "(produce<C>, in, pipe, table)", "(produce<C>, out, pipe, table)"),
    ("dataflow", "counts must be read or written through the region, not both (by count)",
     "void top(const int32_t in[C::N], int32_t* out) {\n#pragma HLS DATAFLOW  // both at once\n",
     "void count(Counts& counts) {\n  counts.value[0] = counts.value[1] + 1;\n}\n"
     "void top(const int32_t in[C::N], int32_t* out, Counts& counts) {\n"
     "#pragma HLS DATAFLOW  // both at once\n  count(counts);\n"),
    ("array-storage", "history has an index that varies in a pipeline: it must have",
     "#pragma HLS ARRAY_PARTITION variable = history", "//"),
    ("exact-width", "i, which loop produce_i carries on, must have a type of exact width, not int",
     "uint16_t i = 0; i < C::N", "int32_t i = 0; i < in[0]"),
    ("exact-width", "history, which loop steps_i", "uint8_t history", "uint32_t history"),
    ("exact-width", "corner.row, which loop steps_i", "corner.column =", "corner.row ="),
    ("exact-width", "sum, which loop steps_i carries on, must have a type of exact width, not int3",
     "uint8_t sum", "total_t sum"),
    ("exact-width", "total_t of pipe, which goes through a stream, must have a type of exact width",
     "Stream<uint8_t, 2> pipe", "Stream<total_t, 2> pipe"),
    ("exact-width", "Corner.row, which goes through a stream, must have a type of exact width, not",
     "Stream<uint8_t, 2> pipe", "Stream<Corner, 2> pipe"),
    ("aggregate", "AGGREGATE of rows must have compact = bit", " compact = bit", ""),
    ("aggregate", "AGGREGATE of rows must have compact = bit", "compact = bit", "compact = byte"),
    ("aggregate", "rows must be flat, and Pair holds Corner", "uint8_t low, high",
     "uint8_t low; Corner high"),
    ("array-storage", "a word of rows must be written whole", "rows[item & 3] = pair",
     "rows[item & 3].low = sum"),
    *(("array-storage", "history has an index that varies in a pipeline: it must have",
       "ARRAY_PARTITION variable = history complete", words)
      for words in ("BIND_STORAGE variable = history type = ram_s2p impl = lutram",
                    "AGGREGATE variable = history compact = bit")),
    *(("array-storage", f"{name} must be a ram_s2p: {kind} has other ports",
       "  uint8_t history[C::N];", f"#pragma HLS BIND_STORAGE variable = {name} {words}  // one\n"
       "  uint8_t history[C::N];")
      for name, kind, words in (("rows", "ram_1p", "type = ram_1p impl = bram"),
                                ("rows", "none", "impl = bram"),
                                ("table", "ram_t2p", "type = ram_t2p impl = bram"))),
    ("array-storage", "a word of history must be written whole",
     "ARRAY_PARTITION variable = history complete", "ARRAY_RESHAPE variable = history complete"),
    ("dataflow", "channel table must be one structure in a stream, not registers",
     "  PROCESS(produce<C>, in, pipe, table);",
     "#pragma HLS ARRAY_PARTITION variable = table complete  // x\n  PROCESS(produce<C>, in, pipe,"
     " table);"),
    ("interval", "loop produce_i must have II = 1, not 2", "II = 1  // one", "II = 2  // one"),
    ("interval", "PIPELINE must stand in the body of the loop that it is about",
     "  int32_t total = 0;\n", "#pragma HLS PIPELINE II = 1  // one\n  int32_t total = 0;\n"),
    *(("interval", f"a step of steps_i must call in.read() once at most, not {number} times",
       "    turn.step();", new)
      for number, new in (
          (2, "    turn.step();\n    sum += in.read();"),
          (3, "    if (sum > 3) sum += in.read() ^ in.read();"),
          (2, "    if (sum > 3) {\n      turn.step();\n    } else {\n      in.read();\n    }"),
          (2, "    sum += sum > 3 ? in.read() : sum;"),
          (2, "    turn.step();\n    drop<C>(in, turn);"),
          (3, "  drop_i:\n    for (int j = 0; j < C::N; j++) {\n"
              "#pragma HLS UNROLL  // all\n      in.read();\n    }"))),
    ("interval", "a step of produce_i must call out.write() once at most, not 2 times",
     "    out.write(in[i]);", "    out.write(in[i]);\n    if (i > 3) out.write(0);"),
    ("interval", "loop produce_i must have II = 1, not none", "PIPELINE II = 1  // one",
     "PIPELINE  // one"),
    *(("array-storage", "history must be partitioned complete", "variable = history complete",
       f"variable = history {words}")
      for words in ("block factor = 2", "type = block factor = 2", "cyclic factor = 2", "off",
                    "complete off", "type = off")),
    ("array-storage", "history has no dimension 3 to be partitioned",
     "variable = history complete", "variable = history complete dim = 3"),
    ("array-storage", "history has an index that varies in a pipeline: it must have",
     "variable = history complete", "variable = history complete dim = 2"),
    ("array-storage", "other has an index that varies in a pipeline: it must have",
     "out.write(history[0]);", "uint8_t other[4];\n    out.write(pick<C>(other + sum, 0));"),
    ("interval", "loop produce_i must be pipelined: not among those that may be off",
     "PIPELINE II = 1  // one", "PIPELINE off  // one"),
    ("interval", "loop produce_i must be pipelined", "II = 1  // one", "II = 1 off  // one"),
    ("interval", "loop produce_i must have II = 1, not rewind", "II = 1  // one",
     "II = 1 rewind  // one"),
    *(("flat", "loop store_counters must have PIPELINE or UNROLL", "HLS PIPELINE off", words)
      for words in ("HLS UNROLL factor = 2", "HLS UNROLL off")),
    ("dependence", "DEPENDENCE of table must be proved",
     "II = 1  // one a cycle\n    out", "II = 1  // one a cycle\n"
     "#pragma HLS DEPENDENCE variable = table inter false  // each is written once\n    out"),
    ("dependence", "DEPENDENCE of partial must be inter RAW distance = N true",
     "II = 1  // one a cycle\n    out", "II = 1  // one a cycle\n"
     "#pragma HLS DEPENDENCE variable = partial inter false  // each is written once\n    out"),
    ("state", "static total of sum keeps its value", "int32_t total = 0;",
     "static int32_t total = 0;"),
    ("state", "static kept of sum keeps its value", "int32_t total = 0;",
     "int32_t total = 0;\n  static count_t kept[C::N];"),
    ("state", "static last of steps keeps its value", "    turn.step();",
     "    static uint8_t last;\n    last = sum++;\n    turn.step();"),
    ("state", "static Corner.all must be constant", "  uint8_t column;",
     "  uint8_t column;\n  static uint8_t all;"),
    ("state", "produce uses carried, a variable of the file: it must be an argument",
     "table[i] = 2 * in[i];\n  }\n}", "table[i] = in[i] + carried;\n  }\n}\nint carried;"),
    ("pragma", "_Pragma must be a line of its own", "#pragma HLS DATAFLOW  // both at once",
     '_Pragma("HLS DATAFLOW")'),
    ("syntax", "macro REGION hides", "#include <cstdint>",
     '#include <cstdint>\n#define REGION _Pragma("HLS DATAFLOW")'),
    ("dynamic", "volatile cannot", "int32_t total = 0;", "volatile int32_t total = 0;"),
    *(("exact-width", f"carries on, must have a type of exact width, not {n}:",
       "uint8_t sum", f"{words} sum")
      for words, n in (("short", "short"), ("size_t", "size_t"), ("signed", "signed"),
                       ("unsigned char", "char"), ("struct Wide::type", "Wide"),
                       ("typename Wide<C>::word_t", "Wide"))),
    ("exact-width", "auto hides a type", "uint8_t sum", "auto sum"),
    ("exact-width", "wide_t of pipe, which goes through a stream", "Stream<uint8_t, 2> pipe",
     "Stream<wide_t, 2> pipe"),
    ("exact-width", "corner.row, which loop steps_i", "corner.column = corner.row + corner.column;",
     "corner.move();"),
    ("exact-width", "corner.row, which loop steps_i", "corner.column = corner.row + corner.column;",
     "raise(corner.row);"),
    ("exact-width", "corner.row, which loop steps_i", "corner.column = corner.row + corner.column;",
     "int32_t& row = corner.row;\n    row++;"),
    ("pointer", "named by its index, not by an address", "out.write(history[0]);",
     "out.write(*(history + sum));"),
    ("pointer", "named by its index, not by an address", "out.write(history[0]);",
     "out.write((history + sum)[0]);"),
    ("pointer", "place is a pointer: use the array's own name", "int32_t total = 0;",
     "int32_t total = 0;\n  const int32_t* place = values;"),
    ("pointer", "out must not move: use an index", "  *out = in", "  out++;\n  *out = in"),
    ("state", "static pipe of top keeps its value", "  Stream<uint8_t, C::N> pipe",
     "  static Stream<uint8_t, C::N> pipe"),
    ("dataflow", "memory out must be read or written by consume, not both, which only read_words",
     "  *out = in", "  *out = out[1] + in"),
    ("exact-width", "turn, which loop steps_i", "Digit<uint8_t> turn", "Digit<int> turn"),
    ("array-storage", "item_ has", "#pragma HLS ARRAY_PARTITION variable = item_", "//"),
    ("array-storage", "spare_ has", "spare_[place]", "spare_[pick<C>(item_, other)]"),
    ("dataflow", "consume must return nothing", "void consume", "int32_t consume"),
    ("flat", "loop store_counters must have PIPELINE or UNROLL", "HLS PIPELINE off",
     "HLS INLINE off"),
    ("flat", "loop produce_k must not stand in loop produce_i: flatten them",
     "    out.write(in[i]);", "  produce_k:\n    for (uint8_t k = 0; k < C::N; k++) {\n"
     "#pragma HLS PIPELINE II = 1  // one a cycle\n      out.write(in[i]);\n    }"),
    ("flat", "sum, which loops, must not stand in loop produce_i", "= 2 * in[i]",
     "= sum<C>(in, i)"),
    ("syntax", "is not closed", "  return total;\n}", "  return total;"),
]  # fmt: skip
# Rules that name another line than the one that broke them.
ELSEWHERE = {"aggregate", "array-storage", "dataflow", "exact-width", "flat", "head", "interval",
             "loop-bound", "loop-label", "loop-pragma", "recursion", "state", "syntax",
             "system"}  # fmt: skip


def findings(text, name="good.hpp"):
    """Findings in one file, as printed."""
    return [str(finding) for finding in check_texts({name: text})]


def test_good_text_passes():
    assert findings(GOOD) == []


@pytest.mark.parametrize(("rule", "word", "old", "new"), SEEDED)
def test_seeded_violation_is_found(rule, word, old, new):
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    hits = [hit for hit in findings(text) if f": {rule}: " in hit and word in hit]
    assert hits, findings(text)
    changed = GOOD[: next(i for i, (a, b) in enumerate(zip(text, GOOD, strict=False)) if a != b)]
    line = f"good.hpp:{1 + changed.count(chr(10))}:" if rule not in ELSEWHERE else "good.hpp:"
    assert any(hit.startswith(line) for hit in hits), hits


def test_every_rule_has_a_seeded_violation_and_a_line_in_the_documents():
    names = {name for name, _ in RULES}
    assert names == {rule for rule, *_ in SEEDED}
    text = (ROOT / "docs/hls.md").read_text()
    assert names == set(
        re.findall(r"^\| `([a-z-]+)` \| ", text[: text.index("Whether a process")], re.M)
    )


def test_mutual_recursion_is_found():
    texts = {"a.cpp": "int f(int n) { return g(n); }", "b.cpp": "int g(int n) { return f(n); }"}
    hits = [finding for finding in check_texts(texts) if finding.rule == "recursion"]
    assert {hit.file for hit in hits} == {"a.cpp", "b.cpp"}


def test_stream_of_that_name_is_not_recursion():
    text = "struct S { int read() { return in.fetch(); } }; int fetch() { return 1; }"
    assert findings(text, "a.cpp") == []


def test_constant_sizes_and_bounds_are_accepted():
    text = """
const int WIDTH = 4;
const int32_t half = WIDTH / 2;
template <int count>
void f() {
  int32_t wide[Copies<C>::COUNT], a[WIDTH][2 * half], b[] = {1, 2}, c[count];
f_i:
  for (int i = WIDTH - 1; i >= half; i--) {
#pragma HLS UNROLL  // few
    a[i][0] = b[i] + c[0];
  }
}
"""
    assert findings(text, "a.cpp") == []


def test_ways_of_a_step_are_not_added_up():
    step = """
    if (item > 3) {
      if (item > 4) return;
      item = in.read();
    } else if (item > 2) {
      item = in.read();
      continue;
    } else {
      switch (item) {
        case 0:
          item = in.read();
          break;
        default:
          item = in.read();
      }
      return;
    }
"""
    text = f"""
void f(Fifo<uint8_t>& in) {{
  uint8_t item = 0;
f_i:
  for (int i = 0; i < 4; i++) {{
#pragma HLS PIPELINE II = 1  // one a cycle
{step}  }}
}}
"""
    assert findings(text, "a.cpp") == []
    twice = text.replace("      continue;\n", "", 1).replace(
        "      return;\n    }\n", "    }\n    in.read();\n"
    )
    assert "in.read() once at most, not 2 times" in findings(twice, "a.cpp")[0]


def test_templates_are_read_as_cpp():
    text = plain_template(
        "Counters c = {{ '{{0}}' }};\n{% for x in y %}\nint {{ x }};\n{% endfor %}"
    )
    assert text.splitlines() == ["Counters c = 1;", "", "int 1;"]


def test_sources_keep_to_the_subset():
    assert check_files([TEMPLATES / "engine", TEMPLATES / "rendered"]) == ([], [])


# `cache` is needed where its probe is compiled (tests/xilinx): sources have it by another name.
LISTED = [(kind, name) for kind in ("SEQUENTIAL", "MEMORIES", "PROMISES", "ADDRESSED", "ONE_PORT")
          for name in getattr(allowed, kind) if name != "cache"]  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), LISTED)
def test_what_is_listed_is_needed(kind, name, monkeypatch):
    monkeypatch.delitem(getattr(allowed, kind), name)
    folders = [TEMPLATES / folder for folder in ("engine", "rendered", "probes")]
    texts = {str(path): path.read_text() for path in find_files(folders)}
    assert check_texts(texts) != []


def test_headers_of_the_simulation_have_heads():
    texts = {path.name: path.read_text() for path in TEMPLATES.glob("*/*.hpp")}
    assert len(texts) > 12
    assert [finding for finding in check_texts(texts) if finding.rule == "head"] == []


def test_every_loop_and_function_of_the_sources_is_seen():
    """The parser loses nothing: as many loops as the text has, all in functions."""
    for path in sorted(TEMPLATES.glob("*/*.hpp")):
        unit = parse(lex(path.name, path.read_text()))
        loops = [i for f in unit.functions for i in f.body.walk() if i.kind in ("for", "while")]
        assert len(loops) == sum(token.text in ("for", "while") for token in unit.source.tokens)


ENGINE = (TEMPLATES / "engine/engine.hpp").read_text()
PROCESSES = re.findall(
    r"\n +(?:PROCESS\()?(\w+)<C>[(,]", ENGINE[ENGINE.index("#pragma HLS DATAFLOW") :]
)


def test_engine_is_a_region_of_processes():
    assert len(PROCESSES) >= 5


@pytest.mark.parametrize("process", PROCESSES)
def test_engine_without_a_process_is_found(process):
    without, count = re.subn(rf"\n +(PROCESS\()?{process}<C>[(,][^;]*;", "", ENGINE)
    assert count == 1
    hits = [f for f in check_texts({**headers(), "engine.hpp": without}) if f.rule == "dataflow"]
    assert hits and all(hit.file == "engine.hpp" for hit in hits)


# What would stop a synthesis of the engine, or slow it down: file, old, new, rule, words.
ON_THE_ENGINE = [
    ("engine.hpp", 'to_compute("to_compute");',
     'to_compute("to_compute");\n#pragma HLS AGGREGATE variable = to_compute compact = bit  // one',
     "aggregate", "to_compute must be flat, and ComputeWork holds CodeSettings"),
    ("compute.hpp", "variable = partial compact = bit", "variable = partial",
     "aggregate", "AGGREGATE of partial must have compact = bit"),
    ("work.hpp", "typename C::quant_t y_min, y_max;", "int32_t y_min, y_max;",
     "exact-width", "FinishWork.y_min, which goes through a stream"),
    ("layer.hpp", "Count<15> shift;", "int32_t shift;",
     "exact-width", "CodeSettings.shift, which goes through a stream"),
    ("work.hpp", "  addr_t address;       // of the layer", "  uint32_t address;  // of the layer",
     "exact-width", "LoadWork.address, which goes through a stream"),
    ("compute.hpp", "tap[side * C::TAP_ROWS + int(buffer.taken)] = next;",
     "tap[side * C::TAP_ROWS + int(buffer.taken)].second = next.second;",
     "array-storage", "a word of tap must be written whole"),
    ("engine.hpp", 'Stream<BiasTile<C>, 2> biases("biases");',
     "typename C::acc_t biases[C::PE];\n"
     "#pragma HLS ARRAY_PARTITION variable = biases complete  // registers",
     "dataflow", "channel biases must be one structure in a stream, not registers"),
    ("memory.hpp", "const typename C::bus_t word = words.read();",
     "const typename C::bus_t word = words.read() ^ chip[job.address];",
     "dataflow", "memory chip_out must be read or written by write_words, not both"),
    ("engine.hpp", "counters[COUNT_LOAD + i] = n[i]", "counters[COUNT_LOAD + i] += n[i]",
     "dataflow", "counters must be read or written through the region, not both (by tally)"),
    ("engine.hpp", "n_stored, counters);", "n_stored, chip_out);",
     "dataflow", "chip_out must be an argument of one process, not of write_words and tally"),
    ("engine.hpp", "PROCESS(finish<C>, to_finish,", "PROCESS(finish<C>, to_pool,",
     "dataflow", "one process must be what reads channel to_pool, not 2"),
    ("conversion_units.hpp", "#pragma HLS ARRAY_PARTITION variable = centroid_", "//",
     "array-storage", "centroid_ has an index that varies"),
    ("finish.hpp", "ARRAY_PARTITION variable = result.code complete",
     "BIND_STORAGE variable = result.code type = ram_s2p impl = lutram",
     "array-storage", "result.code has an index that varies"),
    ("compute.hpp", "variable = tap type = ram_s2p", "variable = tap type = ram_1p",
     "array-storage", "tap must be a ram_s2p: ram_1p has other ports"),
    ("finish.hpp", "#pragma HLS ARRAY_PARTITION variable = result.code", "//",
     "array-storage", "result.code has an index that varies"),
    ("memory.hpp", "Count<C::READ_AHEAD> waiting = 0;", "int32_t waiting = 0;",
     "exact-width", "waiting, which loop read_word carries on"),
    ("pooling.hpp", "#pragma HLS AGGREGATE variable = rows", "//",
     "array-storage", "rows has an index that varies"),
    ("pooling.hpp", "#pragma HLS PIPELINE II = 1", "#pragma HLS PIPELINE off",
     "interval", "loop pool_step must be pipelined: not among those that may be off"),
    ("packing.hpp", "      window[kept - 1] = uint64_t(words.read());",
     "      window[kept - 1] = uint64_t(words.read()) ^ uint64_t(words.read());",
     "interval", "a step of unpack_step must call words.read() once at most, not 2 times"),
    ("weight_loader.hpp", "    uint64_t entry = 0;",
     "    uint64_t entry = 0;\n    const uint64_t second[] = {uint64_t(weights.read())...};",
     "interval", "a step of load_word must call weights.read() once at most, not 2 times"),
    ("line_buffer.hpp", "#pragma HLS INLINE\n  static_assert(C::LINE_LOW",
     "#pragma HLS PIPELINE II = 4  // slow\n  static_assert(C::LINE_LOW",
     "interval", "PIPELINE must stand in the body of the loop"),
    ("pooling.hpp", "for (int p = 0; p < C::PE; p++) {\n#pragma HLS UNROLL",
     "for (int p = 0; p < int(w.pool_h); p++) {\n"
     "#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::PE\n#pragma HLS UNROLL",
     "loop-bound", "loop pool_lane must have a constant bound: it is unrolled"),
    ("engine.hpp", "  count_t most = 0;", "  static count_t most = 0;",
     "state", "static most of tally keeps its value"),
    ("pooling.hpp", "    bool image_end = false;", "    bool image_end = best_so_far > 3;",
     "state", "max_pool uses best_so_far, a variable of the file"),
    ("memory.hpp", "#pragma HLS PIPELINE II = 1",
     "#pragma HLS PIPELINE II = 1  // a word\n#pragma HLS DEPENDENCE variable = chip inter false",
     "dependence", "DEPENDENCE of chip must be proved"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "rule", "words"), ON_THE_ENGINE)
def test_seeded_violation_of_the_engine(file, old, new, rule, words):
    texts = headers()
    assert old in texts[file]
    texts[file] = texts[file].replace(old, new, 1)
    texts["layer.hpp"] += "int best_so_far;\n" if "best_so_far" in new else ""
    hits = [hit for hit in check_texts(texts) if hit.rule == rule and words in hit.message]
    assert hits and hits[0].file in (file, "engine.hpp")  # where the fault or the region is


# What is wrong with a whole design: file, old, new, words.
WHOLE = [
    ("engine.hpp", "#pragma HLS DATAFLOW", "//", "a design must have one DATAFLOW region, not 0"),
    ("pooling.hpp", "  const PoolWork<C> w = work_in.read();",
     "#pragma HLS DATAFLOW  // nested\n  const PoolWork<C> w = work_in.read();",
     "a design must have one DATAFLOW region, not 2"),
    ("accelerator.cpp.j2", "#pragma HLS INLINE off  // one engine", "//",
     "run_layer is called 2 times: it must have INLINE off"),
    ("accelerator.cpp.j2", "fm_out, chip_b, chip_a, record", "fm_out, chip_b, chip_b, record",
     "memory chip_b must be one argument of run_layer, not two"),
    ("accelerator.cpp.j2", "program, fm_in, fm_out, chip_in, chip_out, record",
     "program, fm_in, fm_in, chip_in, chip_out, record",
     "memory fm_in must be one argument of layer_region, not two"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "words"), WHOLE)
def test_seeded_violation_of_a_design(file, old, new, words):
    texts = {
        p.name: p.read_text() for p in find_files([TEMPLATES / "engine", TEMPLATES / "rendered"])
    }
    assert old in texts[file]
    texts[file] = texts[file].replace(old, new, 1)
    hits = [hit for hit in check_texts(texts) if hit.rule == "dataflow" and words in hit.message]
    assert [hit.file for hit in hits] == ["accelerator.cpp.j2"]


def test_rendered_network_keeps_to_the_subset(tmp_path):
    for name, text in render_all(planned("alexnet")).items():
        (tmp_path / name).write_text(text)
    files = [path for path in find_files([tmp_path]) if path.suffix in (".hpp", ".cpp")]
    assert check_files(files) == ([], []) and len(files) > 12


def test_command_line(tmp_path, capsys):
    bad = tmp_path / "bad.cpp"
    bad.write_text("int* f() { return new int; }\n")
    assert main(["hls-check", f"FILES={bad}"]) == 1
    assert capsys.readouterr().out == f"{bad}:1: heap: new takes heap memory\n"
    assert main(["hls-check"]) == 0
    assert "files keep to the HLS subset" in capsys.readouterr().out


def test_missing_file_is_one_sentence(tmp_path):
    done = python("-m", "nuq", "hls-check", f"FILES={tmp_path / 'none.hpp'}", status=2)
    assert done.stderr == error_line(done) + "\n"
