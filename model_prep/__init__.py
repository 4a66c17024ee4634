# SPDX-License-Identifier: Apache-2.0
"""Measures a trained CNN and writes its quantized form: build/NET/quantized (docs/formats.md 1)."""
