# SPDX-License-Identifier: Apache-2.0
"""`Flow`: the commands of nuq from Python, on the digits network."""

import inspect
import re
import zipfile
from pathlib import Path

import matplotlib
import numpy as np
import pytest

import nuq
from nuq import FailedError, Flow, UserError, dispatch, results
from nuq.formats import commands, settings
from nuq.formats.commands import COMMANDS
from nuq.formats.network import load
from nuq.formats.options import table
from tests.checkout import ROOT, needs_compiler, python

matplotlib.use("Agg")

from tests.model_prep.onnx.onnx_models import build, node, random, save
from tests.model_prep.test_accuracy import labelled, small_model


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Flow:
    """A flow whose network is quantized and simulated."""
    made = Flow("digits", out=tmp_path_factory.mktemp("flow"), images=12, bits=3, quiet=True)
    made.simulate()
    return made


@needs_compiler
def test_a_network_goes_from_file_to_bundle(digits, tmp_path):
    quantized = digits.quantize()
    assert quantized.facts["calibrated on"] == "1,437 images of scikit-learn digits"
    assert quantized.facts["integer top-1"].endswith("of 12 images")
    text = digits.report.table()
    *rows, note = text.splitlines()
    names = ["layer", "conv1", "conv2", "conv3", "fc4", "fc5"]
    assert [line.split()[0] for line in rows] == names
    assert note == "bytes and cycles of 12 image(s) together"
    raw = digits.quantize().tables[0].rows[-1]
    assert raw[3:5] == ("raw", None)  # as `nuq quantize` prints it
    assert digits.report.facts["C-simulation"] == "5 layers bit-exact"
    assert digits.report["csim"]["mismatches"] == 0
    assert digits.settings == {"NET": "digits", "IMAGES": 12, "BITS": "3"}
    path = digits.bundle(tmp_path / "out.zip", board="pynq-z2")
    assert (
        path == tmp_path / "out.zip" and "nuq/board/driver.py" in zipfile.ZipFile(path).namelist()
    )


@needs_compiler
def test_what_commands_print_is_kept_where_they_are_quiet(digits, capfd):
    found = digits.simulate()
    assert "PASSED: every layer is bit-exact" in found.printed
    assert capfd.readouterr().out == ""
    loud = Flow("digits", out=digits.folder)
    assert loud.simulate().printed == ""
    assert "PASSED: every layer is bit-exact" in capfd.readouterr().out


@needs_compiler
def test_results_show_themselves(digits):
    for found in (digits.report, digits.quantize()):
        page = found._repr_html_()
        assert len(re.findall(r"<(?!/|img)", page)) == len(re.findall("</", page))
        assert found.title in str(found) and "<td>conv1</td>" in page
    assert 'src="data:image/png;base64,' in digits.report._repr_html_()
    bars = digits.report.plot().axes[0]
    assert [tick.get_text() for tick in bars.get_xticklabels()] == [
        "conv1",
        "conv2",
        "conv3",
        "fc4",
    ]


@needs_compiler
def test_a_layer_is_seen_from_inside(digits):
    found = digits.inspect(images=3)
    network = load(digits.folder / "quantized")
    assert [layer.name for layer in found] == [layer.name for layer in network.layers]
    for layer, stored in zip(found, network.layers, strict=True):
        assert layer.exact.shape == layer.stored.shape == (3, *stored.out_shape)
        if stored.quantizer is None:
            continue
        # what the codes stand for is one of the quantizer's values, alone and in the network
        for one in (layer.stored, layer.alone):
            assert np.isin(np.unique(one), layer.values).all()
        assert len(layer.values) == 8 and len(layer.thresholds) == 7
        # every float value goes to the code between whose thresholds it is
        inside = np.searchsorted(layer.thresholds, layer.encoded)
        assert (layer.values[inside] == layer.alone).mean() > 0.99
    first = found["conv1"]
    assert first.alone_db == pytest.approx(first.stored_db, abs=1)  # nothing before it
    assert found["fc4"].alone_db > found["fc4"].stored_db + 1
    assert "conv1" in str(found) and "conv1" in found._repr_html_()
    figures = [first.histogram(), first.maps(), found["fc4"].maps(1, channels=2), found.errors()]
    assert all(figure.axes for figure in figures)
    assert len(found["fc4"].maps().axes) == 3  # one strip
    assert len([line for line in figures[0].axes[0].lines if line.get_linestyle() == ":"]) == 7


def test_an_activation_in_the_codebook_is_seen_before_it(tmp_path):
    net = save(
        build(
            [node("Conv", "x w", "c", pads=[1, 1, 1, 1]), node("Elu", "c", "e"),
             node("GlobalAveragePool", "e", "y")],
            {"w": random(1, 8, 3, 3, 3)}, (1, 3, 8, 8),
        ),
        tmp_path / "elu.onnx",
    )  # fmt: skip
    pixels = np.random.default_rng(1).integers(0, 256, (70, 3, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", images=pixels)
    one = Flow(net, data=tmp_path / "d.npz", out=tmp_path / "out", bits=4, images=4, quiet=True)
    first = next(iter(one.inspect(2)))
    assert first.quantizer and first.quantizer.y_frac is not None
    assert first.exact.min() >= -1 > first.encoded.min()  # before the ELU and behind it
    inside = np.searchsorted(first.thresholds, first.encoded)
    assert len(first.values) == 16 and (first.values[inside] == first.alone).mean() > 0.99
    assert first.alone_db > 15 and "before" in first.histogram().axes[0].get_xlabel()


def test_searches_and_measurements_leave_tables(tmp_path):
    net, images = small_model(tmp_path / "small.onnx"), labelled(tmp_path / "d.npz")
    one = Flow(net, data=images, out=tmp_path / "out", bits=8, images=20, quiet=True)
    measured = one.accuracy()
    assert measured.facts["data"].startswith("45 images of ")  # all that are left
    assert [row[0] for row in measured.tables[0].rows] == ["float", "integer"]
    assert one.accuracy(images=30)["images"] == 30
    found = one.allocate(metric="sqnr", delta=40)
    assert found.tables[0].head == ("layer", "bits") and len(found["widths"]) == 4
    assert found.facts["plan"] == str(tmp_path / "out" / "plan.toml")
    planned = one.with_options(bits=None, plan=tmp_path / "out" / "plan.toml").quantize()
    widths = {layer["name"]: layer["quantizer"] for layer in planned["layers"][:-1]}
    assert {name: one["bits"] for name, one in widths.items()} == found["widths"]


def test_every_command_is_within_reach(monkeypatch, tmp_path):
    ran: list[str] = []
    monkeypatch.setattr(dispatch, "run", lambda name, _, base: ran.append((name, base)) or 0)
    monkeypatch.setattr(results, "read", lambda name, folder, _: results.Result(name, folder))
    one = Flow("digits", out=tmp_path, part="xczu7ev", pe=16)
    for command in COMMANDS:
        one.run(command)
    assert [name for name, _ in ran] == [*COMMANDS]
    given = dict(ran)
    assert given["csim"] == {"NET": "digits", "OUT": tmp_path, "PART": "xczu7ev", "PE": 16}
    assert given["engine"] == {"PART": "xczu7ev", "PE": 16}  # not into the network's folder
    assert given["parts"] == {}
    # those of README's list have a method of their own
    names = {"csim": "simulate", "test": ""}
    listed = re.findall(r"^make ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    methods = {names.get(command, command) for command in listed} - {""}
    assert {"accuracy", "bundle", "measure"} <= methods
    for name in methods:
        assert inspect.getdoc(getattr(Flow, name)), name


def test_a_settings_file_is_written_and_taken(tmp_path):
    path = Flow("digits", bits=4, quiet=True).init(tmp_path / "own.toml")
    assert path == tmp_path / "own.toml"
    assert commands.request("csim", {}, Flow(config=path)._base("csim")).build.bits == "4"
    with pytest.raises(UserError, match=r"own\.toml"):
        Flow("digits", quiet=True).init(path)


def test_values_are_those_of_the_command_line(monkeypatch, tmp_path):
    file = tmp_path / "own.toml"
    file.write_text('NET = "digits"\nBITS = 6\nPE = 16\n')
    one = Flow(config=file, bits=[5, 4, 3, 3], mean=None, csim_types="exact", average=(3, 4.5))
    given = one._base("allocate")
    assert given == {"CONFIG": file, "BITS": "5,4,3,3", "MEAN": None, "AVERAGE": (3.0, 4.5)}
    assert one.folder == Path("build/digits")
    options = commands.request("csim", {}, one._base("csim")).build
    assert (options.net, options.pe, options.csim_types) == ("digits", 16, "exact")
    assert options.bits == "5,4,3,3"
    # a search has no widths of the build, unless it is given them
    assert commands.request("allocate", {}, given).options.bits is None
    assert commands.request("allocate", {"BITS": "4"}, given).options.bits == "4"
    other = one.with_options(bits=3, out=tmp_path)
    assert other.folder == tmp_path and one.folder == Path("build/digits")
    assert repr(other).startswith("Flow(config=")
    for name in table():
        assert settings.text_of(None) == "" and name.lower().isidentifier()


WRONG = [
    ({"bitz": 4}, "Flow must have options that exist, not bitz; did you mean bits?"),
    ({"images": 0}, "IMAGES must be an integer of 1 or more, not '0'"),
    ({"preset": "tiny"}, "PRESET must be one of accurate, fast, small, paper, not 'tiny'"),
]


@pytest.mark.parametrize(("options", "text"), WRONG)
def test_bad_options_are_refused_at_once(options, text):
    with pytest.raises(UserError, match=re.escape(text)):
        Flow("digits", **options)


def test_errors_are_exceptions(tmp_path, monkeypatch):
    one = Flow("digits", out=tmp_path, quiet=True)
    with pytest.raises(UserError, match="must have a report; call simulate"):
        _ = one.report
    with pytest.raises(UserError, match="not cism; did you mean csim?"):
        one.run("cism")
    with pytest.raises(UserError, match="REPEATS must go with measure, not with csim"):
        one.simulate(repeats=3)
    with pytest.raises(UserError, match="NET must be one of"):
        Flow("digitz", out=tmp_path).quantize()

    def fail(*_: object) -> int:
        print("FAILED: layer conv1")
        return 1

    monkeypatch.setattr(dispatch, "run", fail)
    with pytest.raises(FailedError, match="^csim ended with status 1: FAILED: layer conv1"):
        one.simulate()


def test_a_table_is_aligned_and_escaped():
    made = results.Table("<t>", ("layer", "n"), [("a<b", 1234), ("c", None)])
    assert made.text() == "layer      n\na<b    1,234\nc          -"
    assert "<td>a&lt;b</td>" in made._repr_html_() and "&lt;t&gt;" in made._repr_html_()


def test_nothing_is_imported_before_it_is_needed():
    code = "from nuq import Flow; import sys; Flow('digits'); print('torch' in sys.modules, "
    code += "'numpy' in sys.modules)"
    assert python("-c", code).stdout == "False False\n"
    with pytest.raises(AttributeError, match="no attribute 'Flaw'"):
        _ = nuq.Flaw
