# SPDX-License-Identifier: Apache-2.0
"""The conversion units QE, CE, QK, CK (papers 000/001, Figs. 2 and 3) as Verilog, and their cost.

tables -> render -> checks, synthesis -> sweep, published -> report. Reads `build/NET/quantized/`,
writes `build/NET/units/`. Needs Yosys (PyPI package pyosys).
"""
