# SPDX-License-Identifier: Apache-2.0
"""Streams of the simulation: what would hang the hardware stops it, with the stream's name.

With threads the streams hold as much as the hardware's; without, they grow as they must.
"""

from dataclasses import replace

import pytest

from codegen.emit import csim
from tests.checkout import execute, needs_compiler
from tests.fuzz.builds import Mutation, compile_build
from tests.fuzz.compare import prepare, run
from tests.fuzz.work import CASES, find_build, from_json, make_case
from tests.hls.compiler import compile_text

pytestmark = needs_compiler
TIMEOUT = 20  # seconds; a hang is a failure, too
HANG = "the hardware would hang here"
# Hands on all numbers, then their count; the reader wants the count first.
REGION = """
#include <cstdlib>
#include "fifo.hpp"
static void produce(int n, Fifo<int>& items, Fifo<int>& count) {
  for (int i = 0; i < n; i++) items.write(i);
  count.write(n);
}
static void consume(Fifo<int>& items, Fifo<int>& count, int left, int& sum) {
  for (int i = count.read(); i > left; i--) sum += items.read();
}
int main(int, char** argv) {
  const int numbers = std::atoi(argv[1]), left = std::atoi(argv[2]);
  int sum = 0;
  for (int pass = 0; pass < 3; pass++) {
    Stream<int, 5> items("items");
    Stream<int, 2> count("count");
    PROCESS(produce, numbers, items, count);
    PROCESS(consume, items, count, left, sum);
  }
  return sum == 30 ? 0 : 1;
}
"""
# A process that tells the next one of its pass when it has done it, not before.
LATE = Mutation(
    "token_late", "packing.hpp",
    "  pass_out.write(pass);\n  count_t total = 0;\n  if (pass.last && d.raw) {",
    "  struct Late {\n    Fifo<Pass>& out;\n    const Pass& pass;\n"
    "    ~Late() { out.write(pass); }\n  } late = {pass_out, pass};\n"
    "  count_t total = 0;\n  if (pass.last && d.raw) {",
)  # fmt: skip


@pytest.fixture(scope="module", params=[False, True], ids=["fast", "threads"])
def region(request, tmp_path_factory):
    """REGION as a program, and whether its processes are threads."""
    folder = tmp_path_factory.mktemp("region")
    flags = csim.AP_TYPES["threads" if request.param else "fast"]
    assert compile_text(folder, REGION, *flags) == ""
    return folder / "a.out", request.param


def simulate(program, numbers, left=0):
    """Exit status and messages of REGION."""
    done = execute(program, str(numbers), str(left), seconds=TIMEOUT)
    return done.returncode, done.stderr


def test_streams_that_are_deep_enough(region):
    assert simulate(region[0], 5) == (0, "")


def test_elements_that_are_left_over(region):
    text = f"error: stream 'items' is left with unread elements: {HANG}\n"
    assert simulate(region[0], 5, left=1) == (3, text)


def test_a_read_of_nothing(region):
    program, threads = region
    what = "deadlock, every process waits; stream 'items' is empty"
    what = what if threads else "stream 'items' is read while empty"
    assert simulate(program, 5, left=-1) == (3, f"error: {what}: {HANG}\n")


def test_a_depth_that_is_too_small_is_a_deadlock(region):
    program, threads = region
    status, text = simulate(program, 6)
    if not threads:
        assert status == 1  # another sum, nothing else
        return
    assert status == 3 and text.startswith("error: deadlock, every process waits; stream ")
    assert "; stream 'items' is full with 5" in text and "; stream 'count' is empty" in text
    assert text.endswith(f": {HANG}\n")


def test_engine_with_a_thread_a_process(tmp_path):
    threads = replace(find_build("small"), types="threads")
    program = compile_build(threads, tmp_path)
    for index in range(6):
        assert run(make_case(4, index, "small")[2], program) is None, f"seed 4, network {index}"
    kinds = "cache_shared_word concat_offset lrn_window second_input average_counts_pad"
    for name in kinds.split():
        network, build = from_json((CASES / f"{name}.json").read_text())
        assert build.name == "small"
        assert run(prepare(network, build), program) is None, name


def test_engine_that_deadlocks_at_its_depths(tmp_path):
    """Streams without bounds see nothing of it."""
    build = find_build("small")
    case = make_case(4, 0, "small")[2]
    assert run(case, compile_build(build, tmp_path, mutation=LATE)) is None
    threads = compile_build(replace(build, types="threads"), tmp_path, mutation=LATE)
    text = run(case, threads)
    assert text and "error: deadlock" in text
    assert "stream 'words_out' is full with 64" in text and "stream 'to_write' is empty" in text
