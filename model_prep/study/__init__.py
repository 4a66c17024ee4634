# SPDX-License-Identifier: Apache-2.0
"""The command `study`: the papers' tables and figures, measured again on one network.

`command` runs the sections, `context` holds what they share, `results` what they found; `page` and
`plots` draw report.html. Each other module is one group of tables; papers.json has the papers' own.
"""
