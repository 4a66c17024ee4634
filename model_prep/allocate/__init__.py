# SPDX-License-Identifier: Apache-2.0
"""Searches for a width per layer, the methods of `command`: `search`, `budget`, `quenn`, `filling`.

They share `problem` (groups and fits), `measure` (scores), `cache` (activations) and `scheduler`
(cores or a cluster). `model_prep.quantize.fracs` finds F, qm and one width for all layers.
"""
