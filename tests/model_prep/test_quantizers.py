# SPDX-License-Identifier: Apache-2.0
"""Every quantizer over all of its inputs, against the formulas of docs/formats.md 2.2 and 2.4."""

import numpy as np
import pytest

from formats.errors import UserError
from formats.quantizer import Quantizer
from model_prep.quantize import quantizers
from tests import naive

CASES = [
    *[("uniform", bits, bits, {}) for bits in (2, 7, 12, 16)],
    *[
        ("enq", bits, qm, {"variant": variant})
        for bits, qm in ((1, 2), (3, 3), (1, 12), (5, 12), (11, 12), (12, 12), (4, 15))
        for variant in ("floor", "mid", "round")
    ],
    *[
        ("knq", bits, qm, {"rule": rule})
        for bits, qm in ((1, 2), (2, 2), (3, 12), (5, 12), (8, 9), (8, 15))
        for rule in ("nearest", "floor")
    ],
]


def counts(qm: int) -> np.ndarray:
    """A histogram like that of a ReLU layer."""
    y = np.random.default_rng(qm).exponential(2**qm / 6, 20_000)
    histogram = np.bincount(np.minimum(y, 2**qm - 1).astype(np.int64), minlength=1 << qm)
    histogram[0] += 30_000
    return histogram


@pytest.fixture(params=CASES, ids=lambda case: "-".join(map(str, [*case[:3], *case[3].values()])))
def quantizer(request: pytest.FixtureRequest) -> Quantizer:
    scheme, bits, qm, options = request.param
    return quantizers.fit(scheme, counts(qm), bits, qm, 3, **options)


def test_all_inputs_follow_the_formulas(quantizer: Quantizer) -> None:
    y = np.arange(1 << quantizer.qm)
    codes = quantizer.encode(y)
    values = quantizer.decode(codes)
    sample = y if len(y) <= 4096 else y[:: len(y) // 4096]
    assert (codes[sample] == naive.encode(sample, quantizer)).all()
    assert (values[sample] == naive.decode(codes[sample], quantizer)).all()
    assert codes.max() < 1 << quantizer.bits
    assert values.max() <= quantizer.max_value <= quantizer.y_max


def test_encoding_and_decoding_never_fall(quantizer: Quantizer) -> None:
    assert (np.diff(quantizer.encode_table.astype(int)) >= 0).all()
    assert (np.diff(quantizer.decode_table) > 0).all()


def test_a_decoded_code_encodes_to_itself(quantizer: Quantizer) -> None:
    codes = np.arange(1 << quantizer.bits)
    assert (quantizer.encode(quantizer.decode(codes)) == codes).all()


def test_pooling_commutes_with_encoding(quantizer: Quantizer) -> None:
    windows = np.random.default_rng(2).integers(0, 1 << quantizer.qm, (500, 9))
    assert (quantizer.encode(windows).max(axis=1) == quantizer.encode(windows.max(axis=1))).all()


@pytest.mark.parametrize("bits", [2, 4, 6])
def test_nearest_is_no_worse_than_floor_and_knq_no_worse_than_enq(bits: int) -> None:
    histogram = counts(12)
    y = np.arange(4096)
    error = {}
    for name, scheme, options in (
        ("nearest", "knq", {"rule": "nearest"}),
        ("floor", "knq", {"rule": "floor"}),
        ("enq", "enq", {"variant": "mid"}),
    ):
        fitted = quantizers.fit(scheme, histogram, bits, 12, 0, **options)
        error[name] = (histogram * (fitted.round_trip() - y) ** 2).sum()
    assert error["nearest"] <= error["floor"]
    assert error["nearest"] <= error["enq"]


def test_uniform_frac_follows_the_width() -> None:
    histogram = np.zeros(4096, np.int64)
    histogram[:200] = 1
    assert quantizers.fit("uniform", histogram, 8, 12, 5).frac == 5  # everything fits: keep steps
    histogram[:] = 1
    assert quantizers.fit("uniform", histogram, 8, 12, 5).frac == 1  # drop the lower four bits
    assert quantizers.fit("uniform", histogram, 14, 12, 5).frac == 7  # same range, finer steps


@pytest.mark.parametrize(
    ("scheme", "bits", "qm", "options", "text"),
    [
        (
            "up",
            3,
            12,
            {},
            "^scheme must be one of knq, enq, uniform, optimal, dynamic, linear, gaussian, not up$",
        ),
        ("knq", 9, 12, {}, "^knq bits must be 1..8, not 9$"),
        ("knq", 5, 4, {}, "^knq bits must be 1..4, not 5$"),
        ("knq", 3, 16, {}, "^qm must be 2..15, not 16$"),
        ("knq", 3, 12, {"rule": "up"}, "^rule must be one of nearest, floor, not up$"),
        ("knq", 3, 12, {"variant": "mid"}, "^knq must have no variant, not mid"),
        ("enq", 0, 12, {}, "^enq bits must be 1..15, not 0$"),
        ("enq", 13, 12, {}, "^enq bits must be at most qm 12, not 13$"),
        ("enq", 3, 12, {"variant": "up"}, "^variant must be one of floor, mid, round, not up$"),
        ("enq", 3, 12, {"rule": "floor"}, "^enq must have no rule, not floor"),
        ("uniform", 1, 12, {}, "^uniform bits must be 2..16, not 1$"),
        ("uniform", 17, 12, {}, "^uniform bits must be 2..16, not 17$"),
        ("uniform", 8, 12, {"rule": "floor"}, "^uniform must have no rule, not floor"),
    ],
)
def test_bad_settings(scheme: str, bits: int, qm: int, options: dict[str, str], text: str) -> None:
    with pytest.raises(UserError, match=text):
        quantizers.fit(scheme, np.ones(1 << qm, np.int64), bits, qm, 0, **options)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"centroid": [0, 5, 5, 9]}, "^centroid table must increase strictly"),
        ({"centroid": [0, 5, 9]}, "^centroid table must have 4 entries, not 3$"),
        ({"centroid": [0, 5, 9, 16]}, "^centroid table must stay in 0..15"),
        ({"threshold": [0, 5, 5, 9]}, "^threshold table must start at 0 and then increase"),
        ({"threshold": [1, 5, 6, 9]}, "^threshold table must start at 0 and then increase"),
        ({"centroid": None}, "^knq must have a centroid and a threshold table"),
        ({"qm": 1}, "^qm must be 2..15, not 1$"),
        ({"rule": None}, "^rule must be one of nearest, floor, not None$"),
        ({"variant": "mid"}, "^variant must be absent for this scheme, not mid$"),
    ],
)
def test_bad_tables(changes: dict[str, object], text: str) -> None:
    fields: dict[str, object] = {
        "scheme": "knq", "bits": 2, "qm": 4, "frac": 0, "rule": "floor",
        "centroid": [0, 5, 9, 12], "threshold": [0, 5, 9, 12],
    }  # fmt: skip
    fields.update(changes)
    for name in ("centroid", "threshold"):
        if fields[name] is not None:
            fields[name] = np.array(fields[name], np.int32)
    with pytest.raises(UserError, match=text):
        Quantizer(**fields)  # type: ignore[arg-type]


def test_uniform_qm_is_its_bits() -> None:
    with pytest.raises(UserError, match="^uniform qm must equal its bits 8, not 12$"):
        Quantizer("uniform", 8, 12, 0)
