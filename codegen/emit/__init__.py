# SPDX-License-Identifier: Apache-2.0
"""From a design to files: C++, weights, golden vectors, reports, and what runs them."""
