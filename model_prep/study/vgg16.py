# SPDX-License-Identifier: Apache-2.0
"""VGG-16's published convolutions beside the papers' tables (000, II to IV and VII; 001, II to V).

The papers' rows are of what each layer *reads*: the width of conv1_1 is the image's, and a stored
map has that of the layer behind it (docs/papers.md). F is 0, as the papers' bound of 4095 says,
except where a row has an F for each layer.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from nuq.formats.quantizer import Quantizer
from nuq.model_prep.footprint import VGG16_CONV, VGG16_LAYERS, megabytes, stored
from nuq.model_prep.graph import Graph
from nuq.model_prep.quantize.calibrate import float_maps
from nuq.model_prep.quantize.kmeans import exact_kmeans
from nuq.model_prep.quantize.plan import Settings
from nuq.model_prep.quantize.plan_file import resolve
from nuq.model_prep.quantize.quantizers.histogram import signal_and_noise
from nuq.model_prep.quantize.score import inverse_sqnr, sqnr_db
from nuq.model_prep.stages import quantization
from nuq.model_prep.study import papers
from nuq.model_prep.study.context import Study
from nuq.model_prep.study.plots import Figure, Panel, Series
from nuq.model_prep.study.results import BOTH, Section, Table

QM, BITS = 12, 5  # of table IV
NEEDS = "VGG-16's thirteen convolutions, conv1_1 to conv5_3"
ENQ_ROW, CLNQ_ROW = 6, 9  # the rows that the papers name as the best
_CHANNELS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
_WIDTHS = range(1, 9)  # of the allocation
_READER = "fc6"  # of the last map

Quantizers = Mapping[str, Quantizer]


def is_vgg16(graph: Graph) -> bool:
    """Whether the network begins with the thirteen convolutions under their published names."""
    layers = graph.layers[: len(VGG16_LAYERS)]
    return [(layer.name, layer.weight.shape[0]) for layer in layers] == [
        *zip(VGG16_LAYERS, _CHANNELS, strict=True)
    ]


def stored_widths(table: str, row: int) -> dict[str, int]:
    """A row, from 1, of "enq" or "clnq" as widths of stored maps: each has its reader's."""
    columns = papers.figures()["tables"][table]["columns"]
    by_column = dict(zip(columns, papers.rows(table)[row - 1], strict=True))
    return stored({name: by_column[name] for name in (*VGG16_LAYERS, _READER)})


def published(fracs: Mapping[str, int]) -> dict[str, dict[str, Quantizer]]:
    """The papers' best rows by name, with these F: ENQ below one qm and below q_i, and CLNQ."""
    enq, own = stored_widths("enq", ENQ_ROW), stored_widths("clnq", CLNQ_ROW)

    def below(qm: Mapping[str, int]) -> dict[str, Quantizer]:
        # the upper bits of q_i bits are those of 12 bits with an F that is larger by 12 - q_i
        return {
            name: Quantizer("enq", bits, QM, fracs[name] + QM - qm[name], variant="floor")
            for name, bits in enq.items()
        }

    clnq = {name: Quantizer("uniform", bits, bits, fracs[name]) for name, bits in own.items()}
    return {"enq_one": below(dict.fromkeys(enq, QM)), "enq": below(own), "clnq": clnq}


def centroid_gap(ours: Sequence[int] | np.ndarray, printed: Sequence[int]) -> float:
    """Root mean square of the relative differences from the printed centroids other than 0.

    >>> round(centroid_gap([0, 11, 18], [0, 10, 20]), 6)
    0.1
    """
    got, want = (np.minimum(row, (1 << QM) - 1).astype(float) for row in (ours, printed))
    there = want > 0
    return float(np.sqrt(np.square(got[there] / want[there] - 1).mean()))


def table_iv(counts: Mapping[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Gaps of the exact 5-bit tables from table IV's rows, read as (input, output), by row.

    Args:
        counts: of the integers 0 to 4095 of each stored map with F = 0, int64 [4096].
    """
    tables = {name: exact_kmeans(counts[name], 1 << BITS, zero_first=True) for name in VGG16_LAYERS}
    before = dict(zip(VGG16_LAYERS[1:], VGG16_LAYERS, strict=False))
    return {
        row: (centroid_gap(tables[before[row]], printed), centroid_gap(tables[row], printed))
        for row, *printed in papers.rows("centroids")
    }


def own_noise(study: Study, quantizers: Quantizers) -> dict[str, float]:
    """Inverse SQNR of each layer's quantizer on the float network's maps."""
    fine, found = study.fine, {}
    for name, quantizer in quantizers.items():
        signal, noise = signal_and_noise(fine.counts[name], 0, fine.fracs[name], quantizer)
        found[name] = noise / signal
    return found


def together_db(noise: Mapping[str, float]) -> float:
    """SQNR of all quantizers together (002, equation 9)."""
    return sqnr_db(1.0, sum(noise.values()))


def smallest_widths(
    noise: Mapping[str, Mapping[int, float]], sizes: Mapping[str, int], most: float
) -> dict[str, int]:
    """Widths of few bits whose noise is at most `most` together.

    From the narrowest, the bit that removes most noise for its memory comes next; then bits that
    are not needed are taken back, the largest layers first.

    Args:
        noise: inverse SQNR by layer and width.
        sizes: values by layer.
        most: inverse SQNR of all together.
    """
    widths = {name: min(by_width) for name, by_width in noise.items()}

    def total() -> float:
        return sum(noise[name][bits] for name, bits in widths.items())

    while total() > most:
        gains = {
            name: (noise[name][bits] - noise[name][bits + 1]) / sizes[name]
            for name, bits in widths.items() if bits + 1 in noise[name]
        }  # fmt: skip
        widths[max(gains, key=lambda name: gains[name])] += 1
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        while widths[name] - 1 in noise[name]:
            widths[name] -= 1
            if total() > most:
                widths[name] += 1
                break
    return widths


def _defaults(study: Study) -> Quantizers:
    """KNQ as every other command chooses it: an F by layer for the least loss of the output."""
    subject = study.subject
    plan = resolve(study.graph, Settings(scheme="knq", bits=BITS), subject.source.defaults)
    pixels = subject.images.calibration.pixels
    return quantization(
        study.graph, subject.input, plan, pixels, subject.labels, study.to_float
    ).quantizers  # fmt: skip


def _candidates(study: Study) -> dict[str, tuple[str, Quantizers]]:
    """What each scheme's quantizers are, by name."""
    zero = study.calibration.formats(QM, dict.fromkeys(study.elements, 0))
    printed = published(dict.fromkeys(study.elements, 0))
    return {
        "knq_floor": ("KNQ 5, floor, F 0", zero.fit(study.plan("knq", BITS, "floor"))),
        "knq": ("KNQ 5, nearest, F 0", zero.fit(study.plan("knq", BITS, "nearest"))),
        "knq_own": ("KNQ 5, nearest, own F", study.choice("knq", BITS, "error").quantizers),
        "knq_defaults": ("KNQ 5, the defaults", _defaults(study)),
        "uniform": ("uniform 5, own F", study.choice("uniform", BITS, "error").quantizers),
        "enq_one": (f"ENQ row {ENQ_ROW}, one qm", printed["enq_one"]),
        "enq": (f"ENQ row {ENQ_ROW}, own q_i", printed["enq"]),
        "clnq": (f"CLNQ row {CLNQ_ROW}", printed["clnq"]),
    }


def _through(study: Study, quantizers: Quantizers) -> dict[str, tuple[float, float]]:
    """(SQNR in dB, places with float's largest channel in percent) of each stored map.

    All layers before it are quantized, too; test images.
    """
    signal, noise, same, places = ({name: 0.0 for name in study.elements} for _ in range(4))
    maps = float_maps(study.graph, study.test.pixels, study.to_float)
    for batch, exact in maps:
        pairs = zip(exact, study.network.run(batch, quantizers), strict=True)
        for want, (layer, got) in pairs:
            name = layer.name
            if name in signal:
                signal[name] += float(want.double().square().sum())
                noise[name] += float((want - got).double().square().sum())
                equal = want.argmax(dim=1) == got.argmax(dim=1)
                same[name] += float(equal.sum())
                places[name] += equal.numel()
    return {
        name: (sqnr_db(signal[name], noise[name]), 100 * same[name] / places[name])
        for name in signal
    }


def vgg16(study: Study) -> Section:
    """Table IV's centroids, noise and agreement layer by layer, NB at the papers' noise."""
    candidates = _candidates(study)
    noise = {key: own_noise(study, forms) for key, (_, forms) in candidates.items()}
    through = {
        key: study.store.remember(f"through {key}", partial(_through, study, forms))
        for key, (_, forms) in candidates.items()
    }  # fmt: skip
    zero = study.calibration.counts(QM, dict.fromkeys(study.elements, 0))
    gaps = table_iv(zero)
    total = {key: together_db(one) for key, one in noise.items()}
    names = list(study.elements)
    titles = [title for title, _ in candidates.values()]
    tables = [
        *papers.quoted("enq", "clnq", "centroids"),
        _iv(gaps, len(study.subject.images.calibration)),
        _widths(),
        _maps(study, zero),
        Table("SQNR of each quantizer alone on float's maps, dB; the last row is all together "
              "(002, equation 9)", ["map", *titles],
              [[name, *[-10 * np.log10(one[name]) for one in noise.values()]] for name in names]
              + [["together", *total.values()]], digits=1),
        Table(f"Each stored map with all layers before it quantized, {len(study.test)} test "
              "images: SQNR, dB", ["map", *titles],
              [[name, *[one[name][0] for one in through.values()]] for name in names], digits=1),
        Table("The same: places whose largest channel is float's, %", ["map", *titles],
              [[name, *[one[name][1] for one in through.values()]] for name in names], digits=1),
        _memory(study, total),
    ]  # fmt: skip
    last = names[-1]
    lead = (
        f"All maps together, KNQ of 5 bits has {total['knq_floor']:.1f} dB as the papers round "
        f"(floor, F 0), {total['knq']:.1f} dB with nearest centroids, {total['knq_own']:.1f} dB "
        f"with each layer's F of least error and {total['knq_defaults']:.1f} dB with the F of the "
        f"defaults; the papers' ENQ has {total['enq_one']:.1f} dB below one qm and "
        f"{total['enq']:.1f} dB below each layer's own width, their CLNQ {total['clnq']:.1f} dB. "
        f"After {last}, {through['knq'][last][1]:.1f}% of places have float's largest channel with "
        f"KNQ (nearest), {through['enq'][last][1]:.1f}% with ENQ below own widths."
    )
    series = [
        Series(key, range(len(names)), [one[name][0] for name in names], candidates[key][0])
        for key, one in through.items()
    ]
    panel = Panel(series, y_label="SQNR of the stored map, dB", names=names, legend=3)
    caption = "SQNR along VGG-16, all layers quantized up to the map."
    return Section(lead, tables, [Figure(caption, [panel], (9.6, 3.8))])


def _iv(gaps: Mapping[str, tuple[float, float]], images: int) -> Table:
    rows = [
        [row, *(100 * gap for gap in pair), "input" if pair[0] < pair[1] else "output"]
        for row, pair in gaps.items()
    ]
    return Table(
        f"Table IV against exact 5-bit k-means of {images} images with F 0: relative difference "
        "of the centroids other than 0, rms, %",
        ["row", "read as the layer's input", "read as its output", "nearer"], rows, BOTH,
        "No exact k-means gives conv1_2, which begins with thirteen zeros and goes on with the "
        "triangular numbers, nor the deep rows, whose centroids are far above the optimum's.", 1,
    )  # fmt: skip


def _widths() -> Table:
    """Widths of stored maps as the papers have them, and NB of both readings."""
    enq, clnq = stored_widths("enq", ENQ_ROW), stored_widths("clnq", CLNQ_ROW)
    rows: list[list[Any]] = [
        [name, size, enq[name], clnq[name]]
        for name, size in zip(VGG16_LAYERS, VGG16_CONV, strict=True)
    ]
    nb = [megabytes(sum(size * widths[name] for name, size, *_ in rows)) for widths in (enq, clnq)]
    return Table(
        "Widths of the stored maps: each has that of the layer that reads it",
        ["map", "values before pools", f"ENQ, row {ENQ_ROW}", f"CLNQ, row {CLNQ_ROW}"],
        [*rows, ["NB, MB", sum(VGG16_CONV), *nb]], BOTH,
        "The papers print 9.5 and 16.8 MB, which come from rounded percentages (docs/papers.md).",
    )  # fmt: skip


def _maps(study: Study, zero: Mapping[str, np.ndarray]) -> Table:
    rows = [
        [name, study.elements[name], 100 * counts[0] / counts.sum(), study.calibration.maxima[name],
         100 * counts[-1] / counts.sum()]
        for name, counts in zero.items()
    ]  # fmt: skip
    return Table(
        "The stored maps, after pools, F 0",
        ["map", "values", "zeros, %", "largest", "at the bound of 4095, %"],
        rows,
        note="000 says that some activations are larger than 15000 and that most are 0.",
    )


def _memory(study: Study, total: Mapping[str, float]) -> Table:
    """NB of KNQ with widths and F by layer at the noise of the papers' schemes."""
    curves: dict[str, dict[int, float]] = {name: {} for name in study.elements}
    for bits in _WIDTHS:
        noise = own_noise(study, study.choice("knq", bits, "error").quantizers)
        for name, value in noise.items():
            curves[name][bits] = value
    before = dict(zip(VGG16_LAYERS, VGG16_CONV, strict=True))
    scale = study.graph.layer(VGG16_LAYERS[0]).conv_shape[1] / 224
    rows: list[list[Any]] = []
    for key, what, printed in (("knq_floor", "KNQ 5 bits, floor, F 0", 8.47),
                               ("enq", f"ENQ row {ENQ_ROW}, own q_i", 9.5),
                               ("clnq", f"CLNQ row {CLNQ_ROW}", 16.8)):  # fmt: skip
        widths = smallest_widths(curves, study.elements, inverse_sqnr(total[key]))
        kept = megabytes(sum(study.elements[name] * bits for name, bits in widths.items()))
        whole = megabytes(sum(before[name] * bits for name, bits in widths.items()) * scale**2)
        rows.append([what, total[key], " ".join(map(str, widths.values())), kept, whole, printed])
    return Table(
        "NB of KNQ (nearest, F and width by layer) at the noise of the papers' schemes",
        ["noise of", "dB", "widths", "NB after pools, MB", "NB before pools, MB",
         "the papers' NB, MB"], rows,
        note="Noise is that of the quantizers, not accuracy. The papers count maps before pools, "
        "where the engine stores what is left after them. Greedy allocation on measured noise.",
    )  # fmt: skip
