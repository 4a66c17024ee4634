# SPDX-License-Identifier: Apache-2.0
"""Rendered Verilog, C++ models and black-box descriptions."""

import json
import re

import pytest

from codegen.units.published import published_enq, published_knq
from codegen.units.render import Unit, blackbox_json, model_cpp, verilog
from codegen.units.sweep import module_text

KNQ, ENQ = published_knq("floor"), published_enq("floor")


@pytest.mark.parametrize("kind", ["qe", "ce", "qk", "qk_tree", "ck"])
def test_equal_tables_give_equal_bytes(kind: str) -> None:
    def make() -> Unit:
        tables = published_enq("round") if kind in ("qe", "ce") else published_knq("nearest")
        return Unit(kind, tables, lanes=2, register=True)

    assert verilog(make()) == verilog(make())
    assert model_cpp(make()) == model_cpp(make())


@pytest.mark.parametrize("kind", ["qe", "ce", "qk", "qk_tree", "ck"])
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
