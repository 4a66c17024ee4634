# SPDX-License-Identifier: Apache-2.0
"""Searches for widths: `uniform` for qm and F of the whole network, `single` for one code width."""
