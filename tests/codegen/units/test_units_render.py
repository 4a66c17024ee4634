# SPDX-License-Identifier: Apache-2.0
"""Tables of the conversion units; rendered Verilog, C++ models and black-box descriptions."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from nuq.codegen.units.commands import network_units
from nuq.codegen.units.published import published, published_enq, published_knq
from nuq.codegen.units.render import KINDS, Unit, blackbox_json, model_cpp, verilog
from nuq.codegen.units.sweep import module_text
from nuq.codegen.units.tables import Entry, Tables, network_tables, seeded_quantizer, seeded_tables
from nuq.formats.errors import UserError
from nuq.formats.network import load
from tests.checkout import paper_tables
from tests.toys import Toy, ToyLayer

KNQ, ENQ = published_knq("floor"), published_enq("floor")


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
    assert max(int(entry.quantizer.centroid.max()) for entry in tables.entries) == 4095
    conv1_2 = tables.entries[0].quantizer
    assert conv1_2.encode(np.array([0, 1, 2, 372, 373])).tolist() == [12, 13, 13, 30, 31]


def test_published_enq_has_the_convolutions_of_table_iii() -> None:
    widths = [entry.quantizer.bits for entry in published_enq("floor").entries]
    assert widths == [8, 5, 6, 5, 5, 5, 5, 5, 5, 5, 6, 6, 5]


def test_units_follow_the_layers_that_they_serve(make_toy) -> None:
    """Layer n decodes what its source encoded; inputs, outputs and signed maps have no unit."""
    network = load(make_toy() / "quantized")
    served = {"enq": 0, "knq": 0}
    for scheme in served:
        decoders, encoders = network_tables(network, scheme, 0), network_tables(network, scheme)
        for entry in decoders.entries if decoders else ():
            source = network.layers[entry.index].inputs[0]
            assert entry.quantizer is network.quantizer(source)
            served[scheme] += 1
        for entry in encoders.entries if encoders else ():
            assert entry.quantizer is network.layers[entry.index].quantizer
    assert all(served.values())


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


@pytest.mark.parametrize("kind", KINDS)
def test_equal_tables_give_equal_bytes(kind: str) -> None:
    def make() -> Unit:
        tables = published_enq("round") if kind in ("qe", "ce") else published_knq("nearest")
        return Unit(kind, tables, lanes=2, register=True)

    assert verilog(make()) == verilog(make())
    assert model_cpp(make()) == model_cpp(make())


@pytest.mark.parametrize("kind", KINDS)
def test_black_box_names_the_ports_of_the_module(kind: str) -> None:
    """Vitis HLS wants one name for function and module, and every port that it connects."""
    unit = Unit(kind, ENQ if kind in ("qe", "ce") else KNQ, register=True, label=f"my_{kind}")
    box = json.loads(blackbox_json(unit, 7, 5))
    top = module_text(verilog(unit), unit.name)
    ports = set(re.findall(r"(?:input|output) +wire(?: \[\d+:0\])? (\w+)", top))
    assert box["c_function_name"] == box["rtl_top_module_name"] == f"my_{kind}"
    named = {name for item in box["c_parameters"] for name in item["rtl_ports"].values()}
    named |= set(box["c_return"]["rtl_ports"].values())
    named |= {name for name in box["rtl_common_signal"].values() if name}
    assert named == ports
    assert [item["c_name"] for item in box["c_parameters"]] == re.findall(
        r"ap_uint<\d+> (\w+)[,)]", model_cpp(unit)
    )
    assert box["rtl_performance"] == {"latency": "1", "II": "1"}
    assert box["rtl_resource_usage"]["LUT"] == "7"


def test_combinational_black_box_has_latency_0() -> None:
    assert json.loads(blackbox_json(Unit("qk", KNQ), 0, 0))["rtl_performance"]["latency"] == "0"
    assert "always @(posedge" not in verilog(Unit("qk", KNQ))
    assert "always @(posedge" in verilog(Unit("qk", KNQ, register=True))


def test_only_variants_that_need_them_have_adders() -> None:
    assert "half" not in verilog(Unit("qe", ENQ)) and "half" not in verilog(Unit("ce", ENQ))
    assert "sum" in verilog(Unit("qe", published_enq("round")))
    assert "sum" not in verilog(Unit("qe", published_enq("mid")))
    assert "half" in verilog(Unit("ce", published_enq("mid")))


def test_comparators_are_as_many_as_thresholds() -> None:
    assert "for (j = 1; j < 32;" in verilog(Unit("qk", KNQ))
    assert "threshold[(j - 1) * 12 +: 12]" in verilog(Unit("qk", KNQ))
