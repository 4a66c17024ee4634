# SPDX-License-Identifier: Apache-2.0
"""Streams of the simulation hold as much as the hardware's; what would hang it has their names."""

import pytest

from tests.checkout import execute, needs_compiler
from tests.fuzz.builds import Mutation, compile_build
from tests.fuzz.compare import run
from tests.fuzz.work import find_build, make_case
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
# A process that hands on what it has to say of a tile with the last tile, not before.
LATE = Mutation(
    "token_late", "control.hpp",
    "    if (last) {\n      const TileJob<C> job",
    "    if (pass.last) {\n      const TileJob<C> job",
)  # fmt: skip
ASK_LESS = Mutation("ask_less", "memory.hpp", "addr_t(job.held), fetch)", "addr_t(job.held), 1)")


@pytest.fixture(scope="module")
def region(tmp_path_factory):
    """REGION as a program."""
    folder = tmp_path_factory.mktemp("region")
    assert compile_text(folder, REGION) == ""
    return folder / "a.out"


def simulate(program, numbers, left=0):
    """Exit status and messages of REGION."""
    done = execute(program, str(numbers), str(left), seconds=TIMEOUT)
    return done.returncode, done.stderr


def test_streams_that_are_deep_enough(region):
    assert simulate(region, 5) == (0, "")


def test_elements_that_are_left_over(region):
    text = f"error: stream 'items' is left with unread elements: {HANG}\n"
    assert simulate(region, 5, left=1) == (3, text)


def test_a_read_of_nothing(region):
    what = "deadlock, every process waits; stream 'items' is empty"
    assert simulate(region, 5, left=-1) == (3, f"error: {what}: {HANG}\n")


def test_a_depth_that_is_too_small_is_a_deadlock(region):
    status, text = simulate(region, 6)
    assert status == 3 and text.startswith("error: deadlock, every process waits; stream ")
    assert "; stream 'items' is full with 5" in text and "; stream 'count' is empty" in text
    assert text.endswith(f": {HANG}\n")


def failures(mutation, folder):
    """What is wrong with small networks on the engine with a seeded bug."""
    program = compile_build(find_build("small"), folder, mutation=mutation)
    return "; ".join(str(run(make_case(4, index, "small")[2], program)) for index in range(4))


def test_engine_that_deadlocks_at_its_depths(tmp_path):
    text = failures(LATE, tmp_path)
    assert "error: deadlock, every process waits" in text
    assert "stream 'pack_tiles' is empty" in text and "stream 'write_tiles' is empty" in text


def test_a_word_that_no_burst_asked_for(tmp_path):
    assert "a memory port moves a word that no burst asked for" in failures(ASK_LESS, tmp_path)


# Two loops, an element each a step; the first has a long pipeline, the stream little room.
PIPELINE = """
#include <cstdio>
#include "fifo.hpp"
template <int N>
void compute(Fifo<int>& items) {
  cycle_t total = 0;
  for (int i = 0; i < N; i++) {
    items.write(i);
    total++;
  }
}
template <int N>
void consume(Fifo<int>& items) {
  cycle_t total = 0;
  for (int i = 0; i < N; i++) {
    (void)items.read();
    total++;
  }
  std::printf("%u", region_cycles(0));
}
int main() {
  Stream<int, 4> items("items");
  PROCESS(compute<1000>, items);
  PROCESS(consume<1000>, items);
}
"""


def test_a_long_pipeline_before_little_room_keeps_its_rate(tmp_path):
    """What is on its way through a pipeline takes no room in the stream behind it."""
    text = '#include "timing.hpp"\n' + PIPELINE
    flags = ("-DCSIM_FAST", "-DCSIM_TIMED", "-DDRAM_WORDS_PER_CYCLE=1", "-DADAPTER_WORDS=64")
    assert compile_text(tmp_path, text, *flags) == ""
    done = execute(tmp_path / "a.out", folder=tmp_path)
    assert 1000 <= int(done.stdout) <= 1050
