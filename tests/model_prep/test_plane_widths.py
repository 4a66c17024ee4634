# SPDX-License-Identifier: Apache-2.0
"""Groups of channels: histograms, widths at equal bits, the student that trains their tables."""

import json
from collections.abc import Iterator
from pathlib import Path

import digits_network as digits
import numpy as np
import pytest
import torch

from nuq.formats.commands import main
from nuq.formats.errors import run_cli
from nuq.model_prep.allocate import budget
from nuq.model_prep.quantize.plan import Plan
from nuq.model_prep.quantize.refine import pipeline
from nuq.model_prep.quantize.student import Student
from nuq.model_prep.study import tables
from nuq.model_prep.study.group_student import GroupStudent
from nuq.model_prep.study.plane_widths import KINDS
from nuq.model_prep.study.tables import Channels, Tabled

QM, CPU = 12, torch.device("cpu")
PIXELS = digits.images(48).pixels


@pytest.fixture(autouse=True)
def _gradients() -> Iterator[None]:
    """Commands run by other tests of the process leave gradients off."""
    with torch.enable_grad():
        yield


@pytest.fixture(scope="module")
def plan() -> Plan:
    return digits.plan_of(bits=3, refine="all")


@pytest.fixture(scope="module")
def measured(plan: Plan) -> pipeline.Measured:
    return pipeline.measure(digits.graph(), plan, QM, PIXELS, digits.TO_FLOAT)


@pytest.fixture(scope="module")
def channels(plan: Plan, measured: pipeline.Measured) -> dict[str, Channels]:
    x = [digits.TO_FLOAT(PIXELS)]
    return tables.channel_histograms(measured.exact, x, plan, QM, measured.fracs)


@pytest.fixture(scope="module")
def layers(plan: Plan, measured: pipeline.Measured, channels: dict[str, Channels]) -> Tabled:
    return tables.by_layers(plan, measured, channels, 3.0)


@pytest.fixture(scope="module")
def planes(
    measured: pipeline.Measured, channels: dict[str, Channels], layers: Tabled
) -> Tabled:  # fmt: skip
    groups = tables.in_planes(channels, measured.fracs, QM)
    return tables.own_tables(groups, measured.fracs, QM, layers.nb + layers.table_bits)


def test_channels_add_up_to_their_layer(
    measured: pipeline.Measured, channels: dict[str, Channels]
) -> None:
    for name, one in channels.items():
        summed = pipeline.smoothed(one.counts.sum(0), one.weights)
        np.testing.assert_allclose(summed, measured.weights[name], rtol=1e-9)
        np.testing.assert_allclose(one.weighted.sum(0), summed, rtol=1e-9)


def test_one_table_a_layer_is_what_the_product_has(
    plan: Plan, measured: pipeline.Measured, layers: Tabled
) -> None:
    losses = budget.expected_losses(plan, measured)
    chosen = budget.for_average(plan, measured.exact, losses, 3.0)
    fitted = pipeline.fit_all(chosen, measured.weights, QM, measured.fracs)
    got = {group.plan.name: one for group, one in layers.pairs}
    assert {name: one.key for name, one in got.items()} == {
        name: one.key for name, (one, _) in fitted.items()
    }


def test_planes_divide_the_channels_and_keep_to_the_bits(
    layers: Tabled, planes: Tabled, channels: dict[str, Channels]
) -> None:
    assert planes.nb + planes.table_bits <= layers.nb + layers.table_bits
    for name, one in channels.items():
        own = [group.channels[name] for group in planes.groups if name in group.channels]
        assert sorted(np.concatenate(own)) == list(range(len(one.counts)))
        assert {len(part) for part in own} <= {8, len(one.counts) % 8}
    assert len({one.bits for one in planes.quantizers}) > 1


def test_more_bits_never_lose(measured: pipeline.Measured, planes: Tabled) -> None:
    groups, total = planes.groups, planes.nb + planes.table_bits
    before = [loss(planes, measured)]
    for more in (total * 5 // 4, total * 2):
        before.append(loss(tables.own_tables(groups, measured.fracs, QM, more), measured))
    assert before[0] > before[1] > before[2]


def loss(tabled: Tabled, measured: pipeline.Measured) -> float:
    """Expected loss of all groups."""
    return sum(
        pipeline.weighted_error(one, group.weights, QM, measured.fracs[group.plan.owner])
        for group, one in tabled.pairs
    )


def test_planes_of_one_width_share_a_table_when_merged(
    measured: pipeline.Measured, planes: Tabled
) -> None:
    done = tables.merged(planes, measured.fracs, QM)
    keys = [(group.plan.name, one.bits) for group, one in done.pairs]
    assert len(set(keys)) == len(keys) < len(planes.groups)
    assert done.nb == planes.nb and done.table_bits < planes.table_bits


def test_the_student_is_the_products_where_a_group_is_a_layer(
    plan: Plan, measured: pipeline.Measured, layers: Tabled
) -> None:
    named = {name: one for group, one in layers.pairs for name in group.channels}
    want = Student(measured.exact, digits.INPUT, plan.layers, named, rounded=False)
    got = GroupStudent(measured.exact, digits.INPUT, plan.layers, layers, CPU)
    x = want.inputs(PIXELS)
    assert torch.equal(want(x), got(got.inputs(PIXELS)))
    wanted = torch.autograd.grad(want(x).square().sum(), want.parameters())
    found = torch.autograd.grad(got(x).square().sum(), got.parameters())
    for one, other in zip(wanted, found[:-1], strict=False):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)
    assert got.tables is not None
    first = 0
    every = dict.fromkeys(want.coders.values())
    for grad, one in zip(wanted[len(found) - 1 :], every, strict=True):
        assert one.latent is not None
        last = first + len(one.latent)
        scale = got.tables.unit[first:last].float() / one._step  # of one latent to the other
        assert torch.allclose(grad[1:] * scale[1:], found[-1][first + 1 : last], rtol=1e-3)
        first = last


def test_moved_tables_stay_rising_and_keep_zero(
    plan: Plan, measured: pipeline.Measured, planes: Tabled
) -> None:
    network = GroupStudent(measured.exact, digits.INPUT, plan.layers, planes, CPU)
    assert network.tables is not None
    with torch.no_grad():
        network.tables.latent += torch.randn_like(network.tables.latent)
    done = network.tabled(planes)  # a Quantizer refuses a table that does not rise
    assert [one.key for one in done.quantizers] != [one.key for one in planes.quantizers]
    for one, before in zip(done.quantizers, planes.quantizers, strict=True):
        assert one.centroid is not None and before.centroid is not None
        assert before.centroid[0] != 0 or one.centroid[0] == 0
    again = GroupStudent(measured.exact, digits.INPUT, plan.layers, done, CPU)
    x = network.inputs(PIXELS)
    assert torch.equal(network(x), again(x))


@pytest.mark.slow
def test_the_command_compares_at_equal_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["NET=digits", f"OUT={tmp_path}", "IMAGES=30", "AVERAGE=3", "DISTIL_STEPS=2", "QM=8"]
    assert run_cli(main, ["planes", *words, "SEED=1"]) == 0
    assert run_cli(main, ["planes", *words, "SEED=2"]) == 0
    rows = json.loads((tmp_path / "planes_2.json").read_text())
    assert [(row["steps"], row["kind"]) for row in rows] == [
        (steps, kind) for steps in (0, 2) for kind in KINDS
    ]
    total = {row["kind"]: row["nb"] + row["table_bits"] for row in rows}
    assert max(total.values()) == total["layers"] and total["merged"] <= total["planes"]
    assert all(len(row["divergence"]) == 30 for row in rows)
    assert "3 bits, 2 steps, seeds 1, 2" in capsys.readouterr().out


def test_other_schemes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["planes", "NET=digits", f"OUT={tmp_path}", "SCHEME=uniform"]
    assert run_cli(main, words) == 2
    assert "must have the scheme knq" in capsys.readouterr().err
