# SPDX-License-Identifier: Apache-2.0
"""Training of the float networks and fine-tuning of quantized ones."""
