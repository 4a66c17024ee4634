# SPDX-License-Identifier: Apache-2.0
"""Searches for widths: `uniform` for qm and F of the whole network, `single` for one code width.

`search`, `budget` and `quenn` find a width per layer (`command` runs them); they share `problem`
(groups and fits), `measure` (scores), `cache` (activations) and `scheduler` (cores or a cluster).
"""
