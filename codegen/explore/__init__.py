# SPDX-License-Identifier: Apache-2.0
"""Exploration: every design of the engine that a part can hold, and the fastest of them.

space   the points: lanes, pixels, weight ports, place of the feature maps; which can fit
search  evaluates them with the planner, exactly, pruning by a lower bound; the Pareto front
bounds  what bounds each layer, and the roofline's coordinates
plots   roofline and stacked bars, SVG and PNG
report  explore.json, explore.html and the table on the terminal
"""
