# SPDX-License-Identifier: Apache-2.0
"""The arena: nothing that is live at the same time overlaps."""

from itertools import combinations

from full_size_networks import full_size
from hypothesis import given
from hypothesis import strategies as st

from codegen.design.memory import Tensor, allocate, peak_words
from codegen.emit.report import paper_footprint, stored_footprint

tensors = st.lists(
    st.tuples(st.integers(1, 50), st.integers(-1, 12), st.integers(0, 5)), min_size=1, max_size=14
).map(lambda items: [Tensor(f"t{i}", w, b, b + d) for i, (w, b, d) in enumerate(items)])


@given(tensors)
def test_live_tensors_never_overlap(items: list[Tensor]) -> None:
    arena = allocate(items)
    for a, b in combinations(items, 2):
        if a.birth <= b.death and b.birth <= a.death:
            start_a, start_b = arena.address[a.name], arena.address[b.name]
            assert start_a + a.words <= start_b or start_b + b.words <= start_a
    assert peak_words(items) <= arena.words <= sum(item.words for item in items)
    assert max(arena.address[item.name] + item.words for item in items) == arena.words


def test_a_chain_needs_no_more_than_its_worst_moment() -> None:
    chain = [Tensor(f"t{i}", words, i, i + 1) for i, words in enumerate((90, 70, 60, 20, 10))]
    assert allocate(chain).words == peak_words(chain) == 160


def test_vgg16_activations_are_the_papers() -> None:
    # papers 000/001: 13.55 million activations, 27 MB in half precision, 8.4 MB at 5 bits
    paper = paper_footprint(full_size("vgg16", 5).layers)
    assert paper.activations == 13_547_520
    assert round(paper.half_precision_bits / 8e6, 1) == 27.1
    assert round(paper.nb_bits / 8e6, 1) == 8.5
    assert paper.ratio == 5 / 16


def test_stored_activations_are_counted_after_the_pool() -> None:
    layers = full_size("alexnet", 3).layers
    expected = 64 * 27 * 27 + 192 * 13 * 13 + (384 + 256) * 13 * 13 + 256 * 6 * 6 + 2 * 4096
    assert stored_footprint(layers).activations == expected
    assert stored_footprint(layers).nb_bits == 3 * expected
