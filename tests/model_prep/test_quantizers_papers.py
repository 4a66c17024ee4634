# SPDX-License-Identifier: Apache-2.0
"""The schemes of papers 002 and 004: their equations, their table 1, and properties by search."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.arithmetic import ENTRY_BITS, lowest
from formats.errors import UserError
from formats.quantizer import WIDTHS, Quantizer
from model_prep.quantize import quantizers
from model_prep.quantize.kmeans import exact_kmeans
from model_prep.quantize.quantizers import SCHEMES, WEIGHTS, optimal_step, quenn
from model_prep.quantize.quantizers.histogram import uniform_error
from tests.checkout import paper_tables

MISPRINTED = {("laplacian", 4): 0.461, ("gamma", 2): 1.066}
NEW = ("optimal", "dynamic", "linear", "gaussian")


def error_of(quantizer: Quantizer, histogram: np.ndarray, qm: int, frac: int) -> float:
    """Squared error of a quantizer in units of y, value by value, without the project's help."""
    total = 0.0
    for place in np.flatnonzero(histogram):
        value = math.ldexp(lowest(qm, quantizer.signed) + int(place), -frac)
        y = math.floor(math.ldexp(value, quantizer.frac) + 0.5)
        y = min(max(y, quantizer.y_min), quantizer.y_max)
        stored = int(quantizer.decode(quantizer.encode(np.array([y])))[0])
        total += int(histogram[place]) * (math.ldexp(stored, frac - quantizer.frac) - math.ldexp(
            value, frac)) ** 2  # fmt: skip
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


@pytest.mark.parametrize("density", ["gaussian", "laplacian", "gamma"])
@pytest.mark.parametrize("bits", [1, 3, 6])
def test_the_error_formula_is_the_integral(density: str, bits: int) -> None:
    step = optimal_step.step_size(density, bits)
    if density == "gamma":  # integrate over u = sqrt(x), where the density has no pole
        u = (np.arange(400_000) + 0.5) * 2e-5
        x, width = u * u, 2 * u * 2e-5
        p = np.sqrt(math.sqrt(3) / (8 * math.pi * x)) * np.exp(-math.sqrt(3) * x / 2)
    else:
        x, width = (np.arange(400_000) + 0.5) * 1e-4, 1e-4
        p = (
            np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
            if density == "gaussian"
            else np.exp(-math.sqrt(2) * x) / math.sqrt(2)
        )
    level = (np.minimum(np.floor(x / step), 2 ** (bits - 1) - 1) + 0.5) * step
    integral = float(2 * ((x - level) ** 2 * p * width).sum())
    assert optimal_step.squared_error(density, bits, step) == pytest.approx(integral, rel=1e-4)


def test_steps_shrink_by_less_than_half_a_bit() -> None:
    for density in ("gaussian", "laplacian", "gamma"):
        steps = [optimal_step.computed_step(density, bits) for bits in range(1, 11)]
        ratios = [b / a for a, b in zip(steps, steps[1:], strict=False)]
        assert all(0.5 < ratio < 1 for ratio in ratios)


def test_optimal_step_is_section_3_3() -> None:
    """Sigma 1 in real units, 3 bits to one side: the step of 4 bits, 3 * 0.335 = 1.005, up to 2."""
    y = np.abs(np.random.default_rng(1).normal(0, 256, 200_000)).round().astype(int)
    histogram = np.bincount(y[y > 0], minlength=4096)
    histogram *= 1000 * 256 * 256
    histogram[0] = 10**12  # zeros say nothing about the positive half
    fitted = quantizers.fit("optimal", histogram, 3, 12, 8)
    sigma = math.sqrt((y[y > 0] ** 2).mean()) / 256
    assert fitted.frac == -math.ceil(math.log2(3 * sigma * 0.335))
    assert fitted.scheme == "uniform"
    both = np.concatenate([[0], histogram[:0:-1], [0], histogram[1:]])
    signed = quantizers.fit("optimal", both, 4, 13, 8, signed=True)
    assert signed.frac == fitted.frac


def test_dynamic_is_equations_2_and_3() -> None:
    histogram = np.zeros(4096, np.int64)
    histogram[[0, 7, 1300]] = 5
    assert quantizers.fit("dynamic", histogram, 6, 12, 0).frac == 6 - 11  # IL = ceil(log2 1300)
    assert quantizers.fit("dynamic", histogram, 6, 12, 12).frac == 6 - -1
    capped = quantizers.fit("dynamic", histogram, 16, 12, 12)  # 17 is capped at the best of 8..20
    errors = {f: uniform_error(histogram, 12, 12, False, 16, f) for f in range(8, 21)}
    assert capped.frac == min(17, min(errors, key=lambda f: errors[f])) == 12
    low = np.zeros(4096, np.int64)
    low[2048 - 1300] = 1
    assert (
        quantizers.fit("dynamic", low, 6, 12, 0, signed=True).frac == 6 - 12
    )  # a bit for the sign


def test_linear_takes_the_middles_of_equal_intervals() -> None:
    histogram = np.zeros(4096, np.int64)
    histogram[100:900] = 1
    fitted = quantizers.fit("linear", histogram, 3, 12, 0)
    assert fitted.centroid is not None and fitted.threshold is not None
    assert fitted.centroid.tolist() == [150 + 100 * k for k in range(8)]  # 149.5 rounds upwards
    assert fitted.threshold.tolist() == [0] + [200 + 100 * k for k in range(7)]


def test_lloyd_max_levels_of_a_gaussian() -> None:
    """Max's table for 4 levels: 0.4528 and 1.510 deviations from the mean."""
    y = np.random.default_rng(0).normal(2000, 200, 2_000_000).round().astype(int)
    histogram = np.bincount(y, minlength=4096)
    fitted = quantizers.fit("gaussian", histogram, 2, 12, 0)
    assert fitted.centroid is not None
    want = [2000 + 200 * level for level in (-1.510, -0.4528, 0.4528, 1.510)]
    assert np.abs(fitted.centroid - want).max() <= 2
    equal = quantizers.fit("gaussian", histogram, 2, 12, 0, levels="equal")
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
    """Codes and values never fall with y over all 2^qm inputs; a decoded code is its own code."""
    counts, qm, signed = case
    hardware = SCHEMES[scheme].hardware
    bits = data.draw(st.integers(*SCHEMES[scheme].widths(qm)))
    fitted = quantizers.fit(scheme, counts, bits, qm, 3, signed=signed)
    assert fitted.scheme == hardware and fitted.bits == bits
    y = np.arange(fitted.y_min, fitted.y_max + 1)
    assert (np.diff(fitted.round_trip()) >= 0).all()
    if hardware == "knq" or not signed:
        assert (np.diff(fitted.encode(y).astype(int)) >= 0).all()
        assert (np.diff(fitted.decode_table) > 0).all()
    if fitted.threshold is not None:
        codes = (y[:, None] >= fitted.threshold[None, 1:]).sum(axis=1)
        assert (fitted.encode(y) == codes).all()
    codes = np.arange(1 << bits)
    assert (fitted.encode(fitted.decode(codes)) == codes).all()


@settings(max_examples=40, deadline=None)
@given(histograms(), st.integers(1, 8))
def test_no_table_beats_exact_k_means(case: tuple[np.ndarray, int, bool], bits: int) -> None:
    counts, qm, signed = case
    bits = min(bits, qm)
    errors = {
        name: error_of(quantizers.fit(name, counts, bits, qm, 0, signed=signed), counts, qm, 0)
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
    fitted = quantizers.fit("linear", counts, bits, qm, 0, signed=signed)
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
    fitted = quantizers.fit("dynamic", counts, bits, qm, 0, signed=signed)
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
    fitted = quantizers.fit("uniform", counts, bits, qm, 5, signed=signed)
    chosen = error_of(fitted, counts, qm, 5)
    for frac in range(5 - (qm - bits), 6):
        other = Quantizer("uniform", bits, bits, frac, signed=signed)
        assert chosen <= error_of(other, counts, qm, 5) * (1 + 1e-12)


def test_every_way_to_store_codes_has_schemes() -> None:
    assert {scheme.hardware for scheme in SCHEMES.values()} == set(WIDTHS)


# Weights


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(WEIGHTS)), st.integers(2, 8),
    st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 0.1, 30.0]),
)  # fmt: skip
def test_weights_of_every_scheme(scheme: str, bits: int, seed: int, scale: float) -> None:
    values = (np.random.default_rng(seed).normal(0.1, 1, (4, 3, 2, 2)) * scale).astype(np.float32)
    form = WEIGHTS[scheme].fit(values, bits)
    assert (form.scheme, form.bits, form.integers.shape) == (scheme, bits, values.shape)
    assert form.integers.dtype == np.int64
    if form.table is None:
        assert np.abs(form.integers).max() < 1 << (bits - 1)
    else:
        assert form.table.dtype == np.int32 and form.table.shape == (1 << bits,)
        assert (np.diff(form.table) > 0).all()
        assert np.abs(form.table).max() < 1 << (ENTRY_BITS - 1)
        assert np.isin(form.integers, form.table).all()
        exact = values.astype(np.float64).ravel() * 2.0**form.frac
        off = np.abs(exact[:, None] - form.table[None, :]).min(axis=1)
        assert (np.abs(form.integers.ravel() - exact) <= off + 1).all()  # rounded twice


def test_weight_formats_by_hand() -> None:
    values = np.array([-1.0, -0.5, 0.25, 0.75])
    form = WEIGHTS["dynamic"].fit(values, 4)  # IL = 0 and the sign: FL = 3
    assert (form.frac, form.integers.tolist()) == (3, [-7, -4, 2, 6])
    linear = WEIGHTS["linear"].fit(np.array([-7.0, 7.0, 0.0, 3.0]), 1)
    assert linear.table is not None
    # middles +-3584.25 of -7168.5..7168.5
    assert (linear.frac, linear.table.tolist()) == (10, [-3584, 3584])
    assert linear.integers.tolist() == [-3584, 3584, 3584, 3584]


@pytest.mark.parametrize("scheme", sorted(WEIGHTS))
@pytest.mark.parametrize("values", [np.zeros((2, 3)), np.zeros((0, 3)), np.full((2, 2), 0.3)])
def test_weights_without_spread(scheme: str, values: np.ndarray) -> None:
    form = WEIGHTS[scheme].fit(values, 4)
    assert form.integers.shape == values.shape
    if not values.any():
        assert not form.integers.any() or form.table is not None


def test_a_gaussian_table_saturates_outliers_and_serves_the_rest() -> None:
    """What table 3 of paper 004 shows for fc6 at 6 bits: 0.06 against 0.74."""
    values = np.random.default_rng(3).normal(0, 0.01, 50_000)
    values[:5] = 0.5
    error = {}
    for scheme in ("linear", "gaussian"):
        form = WEIGHTS[scheme].fit(values, 6)
        error[scheme] = np.square(form.integers * 2.0**-form.frac - values)[5:].sum()
    assert error["gaussian"] < error["linear"] / 20


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: quantizers.fit("optimal", np.ones(16), 3, 4, 0, density="up"),
         "^density must be one of gaussian, laplacian, gamma, uniform, not up$"),
        (lambda: quantizers.fit("gaussian", np.ones(16), 3, 4, 0, levels="up"),
         "^levels must be one of lloyd, equal, not up$"),
        (lambda: quantizers.fit("linear", np.ones(16), 3, 4, 0, rule="floor"),
         "^linear must have no rule, not floor; drop it$"),
        (lambda: quantizers.fit("linear", np.ones(16), 5, 4, 0),
         "^linear bits must be 1..4, not 5$"),
        (lambda: quantizers.fit("gaussian", np.zeros(16), 3, 4, 0),
         "^histogram must hold some count above 0"),
        (lambda: quantizers.fit("dynamic", np.zeros(16), 3, 4, 0),
         "^histogram must hold some count above 0"),
    ],
)  # fmt: skip
def test_bad_settings(call: object, text: str) -> None:
    with pytest.raises(UserError, match=text):
        call()  # type: ignore[operator]
