# SPDX-License-Identifier: Apache-2.0
"""The command `study`: the papers' tables and figures, measured again on one network.

`commands` runs the sections, `context` holds what they share, `results` what they found; `plots`
draws the figures. Each other module is one group of tables; papers.json has the papers' own.
"""
