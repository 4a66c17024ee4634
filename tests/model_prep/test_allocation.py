# SPDX-License-Identifier: Apache-2.0
"""The searches for F, qm and a single width, on the digits network and on a made-up score."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import digits_network as digits
import numpy as np
import pytest
from digits_network import plan_of

from nuq.formats.errors import UserError
from nuq.formats.network import Network
from nuq.formats.quantizer import Quantizer
from nuq.model_prep import stages
from nuq.model_prep.quantize import fracs, plan_file
from nuq.model_prep.quantize.calibrate import Formats
from nuq.model_prep.quantize.integers import quantize_layers
from nuq.model_prep.quantize.plan import Plan, Settings
from nuq.model_prep.quantize.plan_file import resolve
from nuq.model_prep.quantize.reference import Reference
from nuq.model_prep.quantize.score import (
    Evaluator,
    Sample,
    check_codes,
    layer_sqnr_db,
    sqnr_db,
    stored_layers,
)


class MadeUp:
    """An evaluator with a score of our own: a stand-in for slow runs."""

    labels = None
    unit = "dB"
    float_score = math.inf

    def __init__(self, best_frac: int, per_bit: float = 6.0) -> None:
        self.best_frac, self.per_bit, self.calls = best_frac, per_bit, 0

    def score(self, chosen: dict[str, Quantizer]) -> tuple[float, float]:
        self.calls += 1
        one = next(iter(chosen.values()))
        score = self.per_bit * one.bits - abs(one.frac - self.best_frac)
        return score, score


@pytest.mark.parametrize(("best", "found"), [(-3, 1), (1, 1), (2, 2), (3, 3), (9, 4)])
def test_the_search_for_frac_climbs_to_the_peak(best: int, found: int) -> None:
    made_up = MadeUp(best)
    # 12 bits and a largest activation of 2000: F = 1 is the finest that clips nothing
    plan = plan_of(frac_mode="network")
    result = fracs.best_fracs(made_up, {"a": 2000.0, "b": 3.0}, 12, plan)  # type: ignore[arg-type]
    assert result.fracs == {"a": found, "b": found}


def test_frac_per_layer_and_given_frac() -> None:
    maxima = {"a": 2000.0, "b": 3.0}
    assert fracs.layer_fracs({"a": 4095.0, "b": 1.0}, 12, plan_of()) == {"a": 0, "b": 11}
    found = fracs.best_fracs(MadeUp(0), maxima, 12, plan_of())  # type: ignore[arg-type]
    assert found.fracs == {"a": 1, "b": 10}
    given = replace(plan_of(), frac=5)
    assert fracs.best_fracs(MadeUp(0), maxima, 12, given).fracs == {"a": 5, "b": 5}  # type: ignore[arg-type]


def test_smallest_qm_by_sqnr() -> None:
    plan = replace(plan_of(qm="auto", bits=2), frac=1)
    found = fracs.uniform_formats(MadeUp(1), {"a": 2000.0}, plan, 20.0)  # type: ignore[arg-type]
    assert found.qm == 12  # 6 dB a bit: 15 - 12 = 3 bits are 18 dB, a fourth would be 24


def test_smallest_qm_by_accuracy() -> None:
    judge, maxima = Evaluator(digits.sample(labels=True)), digits.calibration().maxima
    plan = plan_of(qm="auto", bits=2)
    found = fracs.uniform_formats(judge, maxima, plan, 1.0)
    assert found.score >= judge.float_score - 1.0
    assert fracs.best_fracs(judge, maxima, found.qm - 1, plan).score < judge.float_score - 1.0


def test_qm_that_cannot_be_reached() -> None:
    sample = digits.sample(labels=True)
    logits = (np.eye(10)[sample.labels] + sample.logits * 0).astype(np.float32)
    judge = Evaluator(replace(sample, logits=logits))
    plan = replace(plan_of(qm="auto", bits=2), frac=24)  # clips nearly everything
    with pytest.raises(
        UserError, match="^QM=auto must reach 99.00 % top-1, not .*; raise DELTA or"
    ):
        fracs.uniform_formats(judge, digits.calibration().maxima, plan, 1.0)


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("scheme", ["knq", "enq", "uniform"])
def test_the_smallest_width_is_enough_and_one_less_is_not(scheme: str, labels: bool) -> None:
    judge, plan = Evaluator(digits.sample(labels)), plan_of(scheme=scheme, bits="auto")
    formats = fracs.choose(digits.calibration(), plan, judge, 1.0)
    goal = formats.score - (1.0 if labels else 30.0)
    found = fracs.smallest_width(plan, formats, judge, goal)
    widths = {layer.bits for layer in found.layers[:-1]}
    assert len(widths) == 1
    bits = widths.pop()
    assert bits is not None
    assert judge.score(formats.fit(found))[0] >= goal
    if bits > 2:
        assert judge.score(formats.fit(plan.with_bits(bits - 1)))[0] < goal


def test_no_width_is_enough() -> None:
    judge = Evaluator(digits.sample(labels=False))
    with pytest.raises(UserError, match="^BITS=auto must reach 200.00 dB of output SQNR"):
        fracs.smallest_width(plan_of(bits="auto"), digits.formats(), judge, 200.0)


def test_an_unfitting_layer_is_named() -> None:
    counts = {layer.name: np.zeros(4096, np.int64) for layer in digits.graph().layers}
    with pytest.raises(UserError, match="^layer conv1: histogram must hold some count above 0"):
        Formats(12, dict.fromkeys(counts, 0), counts).fit(plan_of())


def test_fake_quantization_stays_near_the_integer_model() -> None:
    plan, source, pixels, graph = plan_of(), digits.INPUT, digits.images(200).pixels, digits.graph()
    fitted, fake = digits.formats().fit(plan), digits.fake()
    codes = [fitted.get(layer.name) for layer in graph.layers]
    layers = quantize_layers(graph, source, plan.layers, codes, fake.stored)
    network = Network(
        name="digits",
        weights="trained",
        weights_sha256="",
        qm=12,
        input=source,
        layers=tuple(layers),
    )
    raw = dict(Reference(network).run(source.encode(pixels)))[layers[-1].name]
    exact = raw.reshape(len(raw), -1) * 2.0 ** -layers[-1].out_frac
    difference = float(((exact - fake.logits(pixels, fitted)) ** 2).sum())
    assert sqnr_db(float((exact**2).sum()), difference) > 40  # quantization itself leaves about 23


def test_sqnr_by_layer_grows_with_the_width() -> None:
    found = []
    for qm in (4, 6, 8):
        chosen = {name: Quantizer("uniform", qm, qm, f) for name, f in digits.fitting(qm).items()}
        found.append(layer_sqnr_db(digits.fake(), digits.calibration().maps(), chosen))
    for name in digits.fitting():
        assert found[0][name] + 6 < found[1][name] < found[2][name] - 6


def test_the_hardest_images_come_first() -> None:
    labels = np.array([0, 1, 2, 0])
    logits = np.array([[9.0, 1, 0], [0, 5, 4], [0, 9, 1], [3, 1, 0]], np.float32)
    pixels = np.arange(4, dtype=np.uint8)
    sample = Sample(digits.fake(), pixels, labels, logits).hardest_first()
    assert sample.pixels.tolist() == [2, 1, 3, 0]  # wrong, then margins 1, 2 and 8
    assert (sample.labels == labels[[2, 1, 3, 0]]).all()
    plain = Sample(digits.fake(), pixels, None, logits).hardest_first()
    assert plain.pixels.tolist() == [1, 3, 0, 2]
    one = Sample(digits.fake(), pixels, labels, logits[:, :1])
    assert one.hardest_first() is one


@pytest.mark.parametrize("mode", ["network", "layer"])
@pytest.mark.parametrize("clip", [True, False])
def test_a_fixed_frac_of_a_layer_holds_for_all_commands(
    mode: str, clip: bool, tmp_path: Path
) -> None:
    """`allocate` once ignored it, so that one plan had two F."""
    path = tmp_path / "plan.toml"
    path.write_text('[layer.conv1]\nscheme = "enq"\nbits = 11\nfrac = 5\n')
    asked = Settings(scheme="enq", bits="auto", frac_mode=mode, clip=clip)

    def of(plan: Plan) -> tuple[Any, ...]:
        pixels = digits.images(200).pixels
        return digits.graph(), digits.INPUT, plan, pixels, None, digits.TO_FLOAT

    plan = resolve(digits.graph(), asked, Settings(), path)
    _, _, formats = stages.calibrate(*of(plan), few=8)
    done = stages.quantization(*of(plan))
    fitted = formats.fit(done.plan)
    assert fitted["conv1"].frac == 5 and fitted.keys() == done.quantizers.keys()
    assert all(one.key == done.quantizers[name].key for name, one in fitted.items())
    if mode == "network":
        others = fitted.keys() - {"conv1"}
        assert all(fitted[name].frac == formats.fracs[name] for name in others)
    path.write_text(plan_file.text(done.plan, formats.fracs))  # as allocate writes it
    again = stages.quantization(*of(resolve(digits.graph(), Settings(), Settings(), path)))
    assert all(one.key == fitted[name].key for name, one in again.quantizers.items())


def test_other_frac_is_kept_beside_a_fixed_one() -> None:
    plan = plan_of(scheme="enq", bits=4)
    fixed = plan.with_values("frac", {"conv1": 5})
    judge = Evaluator(digits.sample(labels=False))
    free, given = (fracs.choose(digits.calibration(), one, judge, 30.0) for one in (plan, fixed))
    assert given.fracs == {**free.fracs, "conv1": 5} and free.fracs["conv1"] != 5


def test_a_layer_whose_codes_are_all_the_same_is_named() -> None:
    """An F of 0 for a network of small values once gave outputs of 0, and said nothing."""

    def of(**settings: object) -> tuple[Any, ...]:
        plan = plan_of(scheme="enq", bits=3, **settings)
        return digits.graph(), digits.INPUT, plan, digits.images(50).pixels, None, digits.TO_FLOAT

    refusal = "^layer conv1: enq with 3 bits must tell values apart, not give 100.0% of them one "
    with pytest.raises(UserError, match=refusal + "code; raise BITS, set SCHEME=knq, or let each"):
        stages.quantization(*of(frac=-8))
    found = stages.quantization(*of()).quantizers  # an F for each layer
    assert len({one.frac for one in found.values()}) > 1


def test_a_layer_that_gets_nothing_to_tell_apart_is_named() -> None:
    """Its codes suit float's values, but what the layers before it leave is all the same."""
    plan = plan_of(scheme="knq", bits=3, rule="floor")
    good = {name: Quantizer("uniform", 8, 8, f) for name, f in digits.fitting(8).items()}
    first = next(iter(good))
    lost = {**good, first: Quantizer("uniform", 8, 8, -20)}  # every value becomes 0
    maps = list(digits.calibration().maps())
    alike = {
        name: one.alike for name, one in stored_layers(digits.fake(), maps, lost).items()
    }  # fmt: skip
    assert alike[first] == 1.0
    assert all(one.alike < 0.99 for one in stored_layers(digits.fake(), maps, good).values())
    check_codes(digits.calibration(), plan, good, dict.fromkeys(good, 0.9))
    refusal = (
        "^layer conv2: knq with 3 bits must tell values apart, not give 99.9% of them one code;"
    )
    with pytest.raises(UserError, match=refusal + " raise BITS or set RULE=nearest$"):
        check_codes(digits.calibration(), plan, good, {**dict.fromkeys(good, 0.9), "conv2": 0.999})
