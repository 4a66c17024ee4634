# SPDX-License-Identifier: Apache-2.0
"""A float graph and a plan become a network of integers."""
