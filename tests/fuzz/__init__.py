# SPDX-License-Identifier: Apache-2.0
"""Differential fuzzing: random small networks, generated C++ tables against integer references."""
