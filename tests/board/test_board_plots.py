# SPDX-License-Identifier: Apache-2.0
"""The notebook's plots: a layer's name stands under its bar."""

from math import radians, sin

import matplotlib
import matplotlib.pyplot
import pytest

from nuq.board import plots

matplotlib.use("Agg")


@pytest.mark.parametrize("count", [4, 14, 26, 64])
def test_names_end_under_their_bars(count: int) -> None:
    names = [
        f"fire{number}_expand3x3" if number % 2 else f"conv{number}" for number in range(count)
    ]
    memory = {"layers": [{"name": name, "bits": 4} for name in names]}
    rows = [
        {"name": name, "bytes_weights": 1, "bytes_read": 1, "bytes_written": 1, "mean_ms": 1}
        for name in names
    ]
    figure = plots.layer_bars(memory, {"layers": rows, "batch": 1, "time": "model"})
    figure.draw_without_rendering()
    for axis in figure.axes:
        for place, label in enumerate(axis.get_xticklabels()):
            box = label.get_window_extent()
            pixel = axis.transData.transform((place, 0))[0]
            end = box.x1 if count > 6 else (box.x0 + box.x1) / 2
            assert abs(end - pixel) < 16, (label.get_text(), end, pixel)
        first, second = (axis.transData.transform((place, 0))[0] for place in (0, 1))
        tall = axis.get_xticklabels()[0].get_fontsize() * figure.dpi / 72
        if count > 6:  # what lies between two slanted lines of text
            assert (second - first) * sin(radians(60)) >= tall, "names cover each other"
        named = axis.yaxis.label.get_window_extent()
        assert figure.bbox.y0 <= named.y0 and named.y1 <= figure.bbox.y1
    matplotlib.pyplot.close(figure)
