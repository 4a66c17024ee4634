# SPDX-License-Identifier: Apache-2.0
"""Tables and the integer reference of the conversion units."""

from dataclasses import replace

import numpy as np
import pytest

from codegen.units.commands import network_units
from codegen.units.published import published, published_enq, published_knq
from codegen.units.tables import Entry, Tables, network_tables, seeded_quantizer, seeded_tables
from formats.errors import UserError
from formats.network import load
from tests.checkout import paper_tables
from tests.toys import Toy, ToyLayer


def test_published_facts_equal_the_papers() -> None:
    """published/ilnq.json repeats the papers' tables."""
    theirs = paper_tables()["ilnq"]
    ours = published()
    assert ours["vgg16_knq_centroids"] == theirs["knq_vgg16_centroids_5bit"]
    assert ours["vgg16_enq_bits"] == theirs["enq_vgg16"][5]["bits"]
    assert ours["table_v_tsmc90"] == theirs["conversion_units_tsmc90"]


def test_published_knq_reads_4096_as_the_bound() -> None:
    """Table IV saturates one above the largest 12-bit value; conv1_1 has no row."""
    tables = published_knq("floor")
    assert (tables.qm, tables.bits, tables.table_width, tables.layer_bits) == (12, 5, 12, 4)
    assert tables.entries[0].index == 1
    largest = max(int(entry.quantizer.centroid.max()) for entry in tables.entries)
    assert largest == 4095
    conv1_2 = tables.entries[0].quantizer
    assert conv1_2.encode(np.array([0, 1, 2, 372, 373])).tolist() == [12, 13, 13, 30, 31]


def test_published_enq_has_the_convolutions_of_table_iii() -> None:
    widths = [entry.quantizer.bits for entry in published_enq("floor").entries]
    assert widths == [8, 5, 6, 5, 5, 5, 5, 5, 5, 5, 6, 6, 5]


def test_units_follow_the_layers_that_they_serve(make_toy) -> None:
    """Layer n decodes what its source encoded; inputs, outputs and signed maps have no unit."""
    network = load(make_toy() / "quantized")
    checked = 0
    for scheme in ("knq", "enq"):
        decoders = network_tables(network, scheme, 0)
        for entry in decoders.entries if decoders else ():
            source = network.layers[entry.index].inputs[0]
            assert entry.quantizer is network.quantizer(source)
            checked += 1
        encoders = network_tables(network, scheme)
        for entry in encoders.entries if encoders else ():
            assert entry.quantizer is network.layers[entry.index].quantizer
    assert checked > 0


def test_additions_have_a_second_decoder_and_signed_maps_none(make_toy) -> None:
    network = load(make_toy() / "quantized")
    knq = next(i for i, layer in enumerate(network.layers)
               if layer.quantizer and layer.quantizer.scheme == "knq")  # fmt: skip
    layers = list(network.layers)
    twice = (layers[knq].name, layers[knq].name)
    layers[knq + 1] = replace(layers[knq + 1], inputs=twice)
    both = replace(network, layers=tuple(layers))
    second = network_tables(both, "knq", 1)
    assert second and [entry.index for entry in second.entries] == [knq + 1]
    assert "ck_second" in {unit.name for unit in network_units(both)}
    assert "ck_second" not in {unit.name for unit in network_units(network)}

    table = np.arange(8, dtype=np.int32)
    signed_knq = replace(
        layers[knq].quantizer, bits=3, signed=True, centroid=table, threshold=table
    )
    layers[knq] = replace(layers[knq], quantizer=signed_knq)
    signed = network_tables(replace(network, layers=tuple(layers)), "knq")
    served = [entry.index for entry in signed.entries] if signed else []
    assert knq not in served


def test_narrow_layers_get_a_threshold_that_is_never_reached() -> None:
    rng = np.random.default_rng(3)
    entries = (
        Entry(0, "a", seeded_quantizer(rng, "knq", 2, 6)),
        Entry(1, "b", seeded_quantizer(rng, "knq", 4, 8)),
    )
    tables = Tables("two layers", "knq", 2, entries)
    assert (tables.never, tables.table_width) == (256, 9)
    assert seeded_tables("knq", 4, 8, 3, 1).table_width == 8


def test_a_network_without_nonuniform_layers_is_refused(make_toy) -> None:
    build = make_toy(Toy(layers=[ToyLayer(4, scheme="uniform", bits=8), ToyLayer(4)]))
    with pytest.raises(UserError, match="at least one layer must use ENQ or KNQ"):
        network_units(load(build / "quantized"))
