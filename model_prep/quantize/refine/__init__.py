# SPDX-License-Identifier: Apache-2.0
"""Refinement: better accuracy from the same hardware, without labels (option REFINE).

One technique a module; `pipeline` runs them in order.
"""
