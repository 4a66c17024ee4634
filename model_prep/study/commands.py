# SPDX-License-Identifier: Apache-2.0
"""The commands of the study (formats.commands): each a function of the options."""

from dataclasses import replace

from formats.options import Options
from model_prep.commands import subject_of
from model_prep.study import command as studying
from model_prep.study.refined import write_table


def refinement(options: Options) -> None:
    """Every scheme at several average widths, plain and refined; OUT/refine_table.json."""
    steps = options.distil_steps or None  # 0 leaves rows out; a plan has no such number
    write_table(subject_of(replace(options, distil_steps=steps), 1), options)


def study(options: Options) -> None:
    """The papers' tables on this network; OUT/study/report.html."""
    studying.chosen(options.sections)  # before images and weights are loaded
    studying.run(subject_of(options, 1), options)
