# SPDX-License-Identifier: Apache-2.0
"""Tests, the benchmark (python -m tests.bench) and the fuzzer (python -m tests.fuzz)."""
