# SPDX-License-Identifier: Apache-2.0
"""The vendor's tools: Vitis HLS and Vivado scripts, their runs, and what their reports say.

Written from the vendor's documentation (UG1399, UG835, UG994); docs/hls.md says what has been run.
"""
