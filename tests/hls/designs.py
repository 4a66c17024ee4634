# SPDX-License-Identifier: Apache-2.0
"""Designs whose C++ is checked as Vitis HLS would see it, rendered once."""

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

from nuq.codegen.design.array import Array
from nuq.codegen.design.engine import ENGINE
from nuq.codegen.design.general import general_engine
from nuq.codegen.design.planner import plan
from nuq.codegen.emit.render import render_all, render_engine
from nuq.codegen.hls_check.front_end import compile_design
from nuq.codegen.hls_check.program import Finding
from nuq.formats.hardware import find_part
from nuq.formats.network import load
from tests.networks import planned
from tests.toys import POOL2, POOL3, Toy, ToyLayer, write_toy


def every_operation() -> Toy:
    """All kinds of layers and quantizers, wide codes, several weight widths, a codebook."""
    average = {"kernel": (3, 3), "pads": (1, 1, 1, 1), "signed": True}
    layers = [
        ToyLayer(24, (5, 4), (2, 2), (2, 1, 1, 2), bits=3, pool=POOL3, name="a", weight_bits=8),
        ToyLayer(kind="lrn", lrn_size=5, bits=5),
        ToyLayer(24, pads=(1, 1, 1, 1), scheme="enq", bits=6, variant="mid", index_bits=4),
        ToyLayer(kind="add", source2="a", scheme="uniform", bits=11, signed=True),
        ToyLayer(kind="avgpool", kernel=(6, 7), bits=6),
        ToyLayer(24, (1, 1), bits=5),
        ToyLayer(kind="mul", source="layer3", source2="layer5", bits=6, signed=True),
        ToyLayer(kind="avgpool", scheme="uniform", bits=7, **average),
        ToyLayer(30, (1, 1), pool=POOL2),
        ToyLayer(10, (2, 2), kind="fc"),
    ]
    return Toy((3, 24, 25), layers, in_bits=9, symmetric=True)


@cache
def rendered(name: str) -> dict[str, str]:
    """The files of `hls/`: AlexNet with 24 x 8 multipliers and 3 weight ports, `small` with 8 x 8.

    `operations`, which `pairs` runs with two products a multiplier where widths allow; a general
    engine of a family.
    """
    if name in GENERAL:
        engine = general_engine(find_part(GENERAL[name]), {"simd": 8, "pe": 24, "pixels": 1})
        return {**render_engine(engine)[1], ENGINE: engine.text}
    if name not in ("operations", "pairs"):
        own = Array(24, 8, weight_ports=3) if name == "alexnet" else Array(8, 8)
        return render_all(planned("alexnet", own))
    with tempfile.TemporaryDirectory() as folder:
        write_toy(Path(folder), every_operation())
        network = load(Path(folder))
        pairs = {"pe": 32, "pair_bits": 8, "pair_shift": 17} if name == "pairs" else {}
        array = replace(Array(8, 24, 2, 2), **pairs)
        design = plan(network, find_part("XC7Z045"), array, images=2)
        return render_all(design)


GENERAL = {"general_xc7": "XC7Z020", "general_zu": "XCZU7EV"}  # with their parts
DESIGNS = ("alexnet", "operations", "pairs", *GENERAL)


@cache
def compiled(name: str) -> tuple[list[Finding], str]:
    """What clang finds in it, and its LLVM IR."""
    return compile_design(rendered(name))
