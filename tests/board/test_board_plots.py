# SPDX-License-Identifier: Apache-2.0
"""The notebook's plots: a layer's name stands under its bar."""

import matplotlib
import matplotlib.pyplot
import pytest

from nuq.board import plots

matplotlib.use("Agg")


@pytest.mark.parametrize("count", [4, 26])
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
    matplotlib.pyplot.close(figure)
