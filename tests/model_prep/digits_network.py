# SPDX-License-Identifier: Apache-2.0
"""The packaged digits network as tests need it: images, plan, calibration, sample, problem."""

from functools import cache, partial
from typing import NamedTuple

import numpy as np

from nuq.formats.images import ImageSet
from nuq.model_prep import data, networks, weights
from nuq.model_prep.allocate.measure import Measure
from nuq.model_prep.allocate.problem import Problem
from nuq.model_prep.graph import Graph
from nuq.model_prep.quantize.calibrate import Calibration, Formats
from nuq.model_prep.quantize.fake_quant import FakeQuantized
from nuq.model_prep.quantize.fracs import layer_fracs
from nuq.model_prep.quantize.integers import network_input
from nuq.model_prep.quantize.plan import Plan, Settings
from nuq.model_prep.quantize.plan_file import resolve
from nuq.model_prep.quantize.score import Sample
from nuq.model_prep.stages import calibrate

SPEC = networks.get("digits")
TO_FLOAT = partial(data.to_float, SPEC)
INPUT = network_input(SPEC)


@cache
def graph() -> Graph:
    """The trained network; nobody changes it."""
    return weights.load(SPEC, None, np.zeros((1, 1, 8, 8), np.uint8)).graph


@cache
def images(number: int) -> ImageSet:
    """Labelled images."""
    return data.load(SPEC, None, number)


@cache
def calibration(number: int = 200, qm: int = 12, few: int | None = None) -> Calibration:
    """The pass over so many images."""
    return Calibration(graph(), images(number).pixels, TO_FLOAT, qm, number if few is None else few)


def plan_of(**settings: object) -> Plan:
    """A plan, by default knq of 4 bits."""
    return resolve(graph(), Settings(**settings), Settings(scheme="knq", bits=4))  # type: ignore[arg-type]


def fitting(qm: int = 12) -> dict[str, int]:
    """The largest F that clips nothing, by layer name."""
    return layer_fracs(calibration().maxima, qm, plan_of())


def formats(qm: int = 12) -> Formats:
    """What quantizers are fitted to, with these F."""
    return calibration().formats(qm, fitting(qm))


def fake() -> FakeQuantized:
    """The fake-quantized network."""
    return FakeQuantized(graph(), INPUT, plan_of().layers)


def sample(labels: bool, number: int = 200) -> Sample:
    """All the images to judge on."""
    found = images(number).labels if labels else None
    return Sample.of(calibration(number), fake(), found)


class Ready(NamedTuple):
    """Open widths as `allocate` has them, and the images that it searches on."""

    problem: Problem
    sample: Sample

    def goal(self, measure: Measure, delta: float) -> float:
        """The least score within delta of the uniform network."""
        return measure.score(self.problem.full_width())[0] - delta


def ready_for(labels: bool = True, number: int = 400, few: int = 120, **settings: object) -> Ready:
    """A problem, by default knq."""
    found, plan = images(number), plan_of(**{"bits": "auto", **settings})
    truth = found.labels if labels else None
    _, evaluator, formats = calibrate(graph(), INPUT, plan, found.pixels, truth, TO_FLOAT, few)
    return Ready(Problem(graph(), plan, formats), evaluator.sample.hardest_first())
