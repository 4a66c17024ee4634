# SPDX-License-Identifier: Apache-2.0
"""Checks that C++ sources keep to what Vitis HLS synthesizes (docs/hls.md lists the rules).

A tokenizer and a statement parser of our own read templates as written; clang compiles a design.
"""
