# SPDX-License-Identifier: Apache-2.0
"""What Python, the generated C++ and the board agree on; docs/formats.md as code."""
