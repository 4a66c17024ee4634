# SPDX-License-Identifier: Apache-2.0
"""Code generator: from a quantized network (files only) to HLS C++, weights and golden vectors.

Reads `build/NET/quantized/`, writes `build/NET/{hls,params,golden}` and the reports.
"""

VERSION = "0.1.0"
