# SPDX-License-Identifier: Apache-2.0
"""From a quantized network to a design: parts, lanes, memories, rows and their search."""
