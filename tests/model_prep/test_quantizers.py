# SPDX-License-Identifier: Apache-2.0
"""Every scheme against docs/formats.md 2.2 and 2.4, its paper, and properties by search."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nuq.formats.arithmetic import lowest
from nuq.formats.errors import UserError
from nuq.formats.quantizer import WIDTHS, Quantizer
from nuq.model_prep.quantize.kmeans import exact_kmeans
from nuq.model_prep.quantize.quantizers import SCHEMES, fit, optimal_step, quenn
from nuq.model_prep.quantize.quantizers.histogram import uniform_error
from tests import naive
from tests.checkout import paper_tables

VARIANCE_1 = {
    "gaussian": stats.norm,
    "laplacian": stats.laplace(scale=math.sqrt(1 / 2)),
    "gamma": stats.dgamma(1 / 2, scale=math.sqrt(4 / 3)),
}
MISPRINTED = {("laplacian", 4): 0.461, ("gamma", 2): 1.066}
FORMULAS = [
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


def relu_counts(qm: int) -> np.ndarray:
    """A histogram like that of a ReLU layer."""
    y = np.random.default_rng(qm).exponential(2**qm / 6, 20_000)
    histogram = np.bincount(np.minimum(y, 2**qm - 1).astype(np.int64), minlength=1 << qm)
    histogram[0] += 30_000
    return histogram


def check_order(fitted: Quantizer) -> None:
    """Codes and values never fall with y over all 2^qm inputs; a decoded code is its own code."""
    y = np.arange(fitted.y_min, fitted.y_max + 1)
    assert (np.diff(fitted.round_trip()) >= 0).all()
    if fitted.scheme == "knq" or not fitted.signed:
        assert (np.diff(fitted.encode(y).astype(int)) >= 0).all()
        assert (np.diff(fitted.decode_table) > 0).all()
    codes = np.arange(1 << fitted.bits)
    assert (fitted.encode(fitted.decode(codes)) == codes).all()


@pytest.mark.parametrize(("scheme", "bits", "qm", "options"), FORMULAS)
def test_all_inputs_follow_the_formulas(
    scheme: str, bits: int, qm: int, options: dict[str, str]
) -> None:
    fitted = fit(scheme, relu_counts(qm), bits, qm, 3, **options)
    y = np.arange(1 << fitted.qm)
    codes = fitted.encode(y)
    values = fitted.decode(codes)
    sample = y if len(y) <= 4096 else y[:: len(y) // 4096]
    assert (codes[sample] == naive.encode(sample, fitted)).all()
    assert (values[sample] == naive.decode(codes[sample], fitted)).all()
    assert codes.max() < 1 << fitted.bits
    assert values.max() <= fitted.max_value <= fitted.y_max
    check_order(fitted)
    windows = np.random.default_rng(2).integers(0, 1 << fitted.qm, (500, 9))
    assert (fitted.encode(windows).max(axis=1) == fitted.encode(windows.max(axis=1))).all()


def error_of(quantizer: Quantizer, histogram: np.ndarray, qm: int, frac: int) -> float:
    """Squared error of a quantizer in units of y, value by value, without the project's help."""
    total = 0.0
    for place in np.flatnonzero(histogram):
        value = math.ldexp(lowest(qm, quantizer.signed) + int(place), -frac)
        y = math.floor(math.ldexp(value, quantizer.frac) + 0.5)
        y = min(max(y, quantizer.y_min), quantizer.y_max)
        stored = math.ldexp(int(quantizer.decode(quantizer.encode(y))), -quantizer.frac)
        total += int(histogram[place]) * math.ldexp(stored - value, frac) ** 2
    return total


@pytest.mark.data
def test_table_1_of_the_paper() -> None:
    table = paper_tables()["fixed_point"]["optimal_step"]
    for density in optimal_step.DENSITIES:
        assert list(optimal_step.TABLE_1[density]) == table[density]


@pytest.mark.parametrize("density", optimal_step.DENSITIES)
@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_computed_steps_are_those_of_table_1(density: str, bits: int) -> None:
    printed = optimal_step.TABLE_1[density][bits - 1]
    computed = optimal_step.computed_step(density, bits)
    assert computed == pytest.approx(MISPRINTED.get((density, bits), printed), abs=0.0008)
    if (density, bits) in MISPRINTED:
        error = optimal_step.squared_error
        assert error(density, bits, computed) < error(density, bits, printed)


@pytest.mark.parametrize("density", VARIANCE_1)
@pytest.mark.parametrize("bits", [1, 3, 6])
def test_the_error_formula_is_the_integral(density: str, bits: int) -> None:
    step = optimal_step.step_size(density, bits)
    u = (np.arange(400_000) + 0.5) * 2.5e-5  # u = sqrt(x): where the gamma density has no pole
    x, width = u * u, 2 * u * 2.5e-5
    p = VARIANCE_1[density].pdf(x)
    level = (np.minimum(np.floor(x / step), 2 ** (bits - 1) - 1) + 0.5) * step
    integral = float(2 * ((x - level) ** 2 * p * width).sum())
    assert optimal_step.squared_error(density, bits, step) == pytest.approx(integral, rel=1e-4)


def test_steps_shrink_by_less_than_half_a_bit() -> None:
    for density in VARIANCE_1:
        steps = [optimal_step.computed_step(density, bits) for bits in range(1, 11)]
        ratios = [b / a for a, b in zip(steps, steps[1:], strict=False)]
        assert all(0.5 < ratio < 1 for ratio in ratios)


def test_optimal_step_is_section_3_3() -> None:
    """Sigma 1 in real units, 3 bits to one side: the step of 4 bits, 3 * 0.335 = 1.005, up to 2."""
    y = np.abs(np.random.default_rng(1).normal(0, 256, 200_000)).round().astype(int)
    histogram = np.bincount(y[y > 0], minlength=4096)
    histogram *= 1000 * 256 * 256
    histogram[0] = 10**12  # zeros say nothing about the positive half
    fitted = fit("optimal", histogram, 3, 12, 8)
    sigma = math.sqrt((y[y > 0] ** 2).mean()) / 256
    assert fitted.frac == -math.ceil(math.log2(3 * sigma * 0.335))
    assert fitted.scheme == "uniform"
    both = np.concatenate([[0], histogram[:0:-1], [0], histogram[1:]])
    signed = fit("optimal", both, 4, 13, 8, signed=True)
    assert signed.frac == fitted.frac


def test_dynamic_is_equations_2_and_3() -> None:
    histogram = np.zeros(4096, np.int64)
    histogram[[0, 7, 1300]] = 5
    assert fit("dynamic", histogram, 6, 12, 0).frac == 6 - 11  # IL = ceil(log2 1300)
    assert fit("dynamic", histogram, 6, 12, 12).frac == 6 - -1
    capped = fit("dynamic", histogram, 16, 12, 12)  # 17 is capped at the best of 8..20
    errors = {f: uniform_error(histogram, 12, 12, False, 16, f) for f in range(8, 21)}
    assert capped.frac == min(17, min(errors, key=lambda f: errors[f])) == 12
    low = np.zeros(4096, np.int64)
    low[2048 - 1300] = 1
    assert fit("dynamic", low, 6, 12, 0, signed=True).frac == 6 - 12  # a bit for the sign


def test_linear_takes_the_middles_of_equal_intervals() -> None:
    histogram = np.zeros(4096, np.int64)
    histogram[100:900] = 1
    fitted = fit("linear", histogram, 3, 12, 0)
    assert fitted.centroid is not None and fitted.threshold is not None
    assert fitted.centroid.tolist() == [150 + 100 * k for k in range(8)]  # 149.5 rounds upwards
    assert fitted.threshold.tolist() == [0] + [200 + 100 * k for k in range(7)]


def test_lloyd_max_levels_of_a_gaussian() -> None:
    """Max's table for 4 levels: 0.4528 and 1.510 deviations from the mean."""
    y = np.random.default_rng(0).normal(2000, 200, 2_000_000).round().astype(int)
    histogram = np.bincount(y, minlength=4096)
    fitted = fit("gaussian", histogram, 2, 12, 0)
    assert fitted.centroid is not None
    want = [2000 + 200 * level for level in (-1.510, -0.4528, 0.4528, 1.510)]
    assert np.abs(fitted.centroid - want).max() <= 2
    equal = fit("gaussian", histogram, 2, 12, 0, levels="equal")
    assert equal.centroid is not None
    want = [2000 + 200 * 0.996 * level for level in (-1.5, -0.5, 0.5, 1.5)]
    assert np.abs(equal.centroid - want).max() <= 2


@st.composite
def histograms(draw: st.DrawFn) -> tuple[np.ndarray, int, bool]:
    """Counts [2^qm], some sparse, some dense, some of one value only."""
    qm = draw(st.integers(2, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.sampled_from([0.02, 0.2, 1.0]))
    counts = rng.integers(0, 50, 1 << qm) * (rng.random(1 << qm) < spread)
    counts[draw(st.integers(0, (1 << qm) - 1))] += draw(st.integers(1, 2000))
    return counts.astype(np.int64), qm, draw(st.booleans())


@settings(max_examples=60, deadline=None)
@given(histograms(), st.sampled_from(sorted(SCHEMES)), st.data())
def test_every_scheme_on_any_histogram(
    case: tuple[np.ndarray, int, bool], scheme: str, data: st.DataObject
) -> None:
    counts, qm, signed = case
    hardware = SCHEMES[scheme].hardware
    bits = data.draw(st.integers(*SCHEMES[scheme].widths(qm)))
    fitted = fit(scheme, counts, bits, qm, 3, signed=signed)
    assert fitted.scheme == hardware and fitted.bits == bits
    check_order(fitted)
    if fitted.threshold is not None:
        y = np.arange(fitted.y_min, fitted.y_max + 1)
        codes = (y[:, None] >= fitted.threshold[None, 1:]).sum(axis=1)
        assert (fitted.encode(y) == codes).all()


@settings(max_examples=40, deadline=None)
@given(histograms(), st.integers(1, 8))
def test_no_table_beats_exact_k_means(case: tuple[np.ndarray, int, bool], bits: int) -> None:
    counts, qm, signed = case
    bits = min(bits, qm)
    errors = {
        name: error_of(fit(name, counts, bits, qm, 0, signed=signed), counts, qm, 0)
        for name in ("knq", "linear", "gaussian")
    }
    kept_zero = not signed and 2 * counts[0] > counts.sum()
    best = exact_kmeans(counts, 1 << bits, zero_first=bool(kept_zero))
    assert errors["knq"] <= min(errors.values())
    if bits == qm:
        assert max(errors.values()) == 0 and len(best) == 1 << qm


@settings(max_examples=40, deadline=None)
@given(histograms(), st.integers(2, 8))
def test_linear_errs_by_half_an_interval(case: tuple[np.ndarray, int, bool], bits: int) -> None:
    counts, qm, signed = case
    bits = min(bits, qm)
    fitted = fit("linear", counts, bits, qm, 0, signed=signed)
    places = np.flatnonzero(counts)
    first = lowest(qm, signed)
    interval = max((places[-1] - places[0] + 1) / 2**bits, 1)
    kept_zero = not signed and 2 * counts[0] > counts.sum()
    off = np.abs(fitted.round_trip() - np.arange(first, first + (1 << qm)))[places]
    assert off.max() <= interval * (0.75 if kept_zero else 0.5) + 1


@settings(max_examples=40, deadline=None)
@given(histograms(), st.integers(2, 16))
def test_dynamic_covers_the_range(case: tuple[np.ndarray, int, bool], bits: int) -> None:
    """Nothing saturates by more than the one step that 2^IL is above the largest code."""
    counts, qm, signed = case
    fitted = fit("dynamic", counts, bits, qm, 0, signed=signed)
    places = np.flatnonzero(counts) + lowest(qm, signed)
    largest = int(np.abs(places).max())
    if largest:
        step = 2.0**-fitted.frac
        assert largest <= (fitted.y_max + 1) * step
        if fitted.frac not in quenn.SEARCHED:
            assert largest > (fitted.y_max + 1) * step / 2


@settings(max_examples=40, deadline=None)
@given(histograms(), st.integers(2, 8))
def test_uniform_has_the_least_error_of_its_formats(
    case: tuple[np.ndarray, int, bool], bits: int
) -> None:
    counts, qm, signed = case
    bits = min(bits, qm)
    fitted = fit("uniform", counts, bits, qm, 5, signed=signed)
    chosen = error_of(fitted, counts, qm, 5)
    for frac in range(5 - (qm - bits), 6):
        other = Quantizer("uniform", bits, bits, frac, signed=signed)
        assert chosen <= error_of(other, counts, qm, 5) * (1 + 1e-12)


def test_every_way_to_store_codes_has_schemes() -> None:
    assert {scheme.hardware for scheme in SCHEMES.values()} == set(WIDTHS)


@pytest.mark.parametrize("bits", [2, 4, 6])
def test_nearest_is_no_worse_than_floor_and_knq_no_worse_than_enq(bits: int) -> None:
    histogram = relu_counts(12)
    y = np.arange(4096)
    error = {}
    for name, scheme, options in (
        ("nearest", "knq", {"rule": "nearest"}),
        ("floor", "knq", {"rule": "floor"}),
        ("enq", "enq", {"variant": "mid"}),
    ):
        fitted = fit(scheme, histogram, bits, 12, 0, **options)
        error[name] = (histogram * (fitted.round_trip() - y) ** 2).sum()
    assert error["nearest"] <= error["floor"]
    assert error["nearest"] <= error["enq"]


def test_uniform_frac_follows_the_width() -> None:
    histogram = np.zeros(4096, np.int64)
    histogram[:200] = 1
    assert fit("uniform", histogram, 8, 12, 5).frac == 5  # everything fits: keep steps
    histogram[:] = 1
    assert fit("uniform", histogram, 8, 12, 5).frac == 1  # drop the lower four bits
    assert fit("uniform", histogram, 14, 12, 5).frac == 7  # same range, finer steps


@pytest.mark.parametrize(
    ("scheme", "bits", "qm", "options", "text"),
    [
        ("up", 3, 12, {}, "scheme must be one of knq, enq, uniform, optimal, dynamic, linear, ga"),
        ("knq", 9, 12, {}, "knq bits must be 1..8, not 9$"),
        ("knq", 5, 4, {}, "knq bits must be 1..4, not 5$"),
        ("knq", 3, 16, {}, "qm must be 2..15, not 16$"),
        ("knq", 3, 12, {"rule": "up"}, "rule must be one of nearest, floor, not up$"),
        ("knq", 3, 12, {"variant": "mid"}, "knq must have no variant, not mid; drop it$"),
        ("enq", 0, 12, {}, "enq bits must be 1..15, not 0$"),
        ("enq", 13, 12, {}, "enq bits must be at most qm 12, not 13$"),
        ("enq", 3, 12, {"variant": "up"}, "variant must be one of round, mid, floor, not up$"),
        ("enq", 3, 12, {"rule": "floor"}, "enq must have no rule, not floor; drop it$"),
        ("uniform", 1, 12, {}, "uniform bits must be 2..16, not 1$"),
        ("uniform", 17, 12, {}, "uniform bits must be 2..16, not 17$"),
        ("uniform", 8, 12, {"rule": "floor"}, "uniform must have no rule, not floor; drop it$"),
        ("optimal", 3, 4, {"density": "up"}, "density must be one of gaussian, laplacian, gamma,"),
        ("gaussian", 3, 4, {"levels": "up"}, "levels must be one of lloyd, equal, not up$"),
        ("linear", 3, 4, {"rule": "floor"}, "linear must have no rule, not floor; drop it$"),
        ("linear", 5, 4, {}, "linear bits must be 1..4, not 5$"),
    ],
)
def test_bad_settings(scheme: str, bits: int, qm: int, options: dict[str, str], text: str) -> None:
    with pytest.raises(UserError, match=f"^{text}"):
        fit(scheme, np.ones(1 << qm, np.int64), bits, qm, 0, **options)


@pytest.mark.parametrize("scheme", ["gaussian", "dynamic"])
def test_a_histogram_must_count_something(scheme: str) -> None:
    with pytest.raises(UserError, match="^histogram must hold some count above 0"):
        fit(scheme, np.zeros(16), 3, 4, 0)


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
