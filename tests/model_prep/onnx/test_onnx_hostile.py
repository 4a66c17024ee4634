# SPDX-License-Identifier: Apache-2.0
"""Broken and hostile files: exit status 2, one sentence, no hang, nothing left; safe names."""

import json
import re
from pathlib import Path

import hostile_files
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import StringStringEntryProto, TensorProto, helper
from onnx_models import build, compare, node, random, save

from nuq.formats.errors import UserError
from nuq.model_prep.onnx import load_onnx
from nuq.model_prep.onnx.limits import Budget
from nuq.model_prep.onnx.load import RESERVED, Namer
from tests.checkout import python

TIMEOUT_S = 120
LONGEST = 20_000  # characters of one message; 100 nodes are listed at most
RUN_ALL = """
import contextlib, io, json, pathlib, sys, time
from nuq.formats.errors import run_cli
from nuq.model_prep.onnx import load_onnx
results = {}
for name in sys.argv[1:]:
    text = io.StringIO()
    begin = time.monotonic()
    with contextlib.redirect_stderr(text):
        status = run_cli(lambda argv: load_onnx(pathlib.Path(argv[0])) and 0, [name])
    results[name] = [status, text.getvalue(), time.monotonic() - begin]
print(json.dumps(results))
"""


def test_every_hostile_file_exits_2_with_one_sentence(tmp_path: Path) -> None:
    """In a process of their own, so that a crash would be seen."""
    folder = tmp_path / "models"
    folder.mkdir()
    files = hostile_files.write(folder)
    assert len(files) >= 30
    before = sorted(tmp_path.rglob("*"))
    done = python("-c", RUN_ALL, *(str(path) for path, _ in files.values()), seconds=TIMEOUT_S)
    results = json.loads(done.stdout)
    wrong = []
    for name, (path, text) in files.items():
        status, message, seconds = results[str(path)]
        good = (
            status == 2 and seconds < 10 and len(message) < LONGEST
            and message.startswith(f"error: {path.parent.parent}") and message.count("\n") == 1
            and message.rstrip("\n").isprintable() and re.search(text, message)
        )  # fmt: skip
        if not good:
            wrong.append((name, status, message[:300], round(seconds, 1)))
    assert not wrong
    assert sorted(tmp_path.rglob("*")) == before


def test_good_external_data_is_read(tmp_path: Path) -> None:
    weight = random(1, 8, 4, 3, 3)
    (tmp_path / "weights.bin").write_bytes(bytes(64) + weight.tobytes())
    tensor = TensorProto(name="w", dims=weight.shape, data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weights.bin"), ("offset", "64")):
        tensor.external_data.append(StringStringEntryProto(key=key, value=value))
    model = build([node("Conv", "x w", "y")])
    model.graph.initializer.append(tensor)
    network = load_onnx(save(model, tmp_path / "model.onnx"))
    assert np.array_equal(network.graph.layers[0].weight, weight)


NASTY = [
    'x"); system("rm -rf ~', "../../etc", "<script>alert(1)</script>", "a\x00b\x1b[2J", "INPUT",
    "n" * 100_000, "int", "input", "${IFS}", "\u202egnp.exe", "conv", "Conv", "/conv", "9lives",
]  # fmt: skip


def test_names_become_identifiers_and_titles_stay_printable(tmp_path: Path) -> None:
    nodes, source = [], "x"
    for index, name in enumerate(NASTY):
        nodes.append(helper.make_node("Conv", [source, "w"], [f"t{index}"], name=name))
        source = f"t{index}"
    model = build(nodes, {"w": random(1, 4, 4, 1, 1)}, output=source)
    network = compare(model, tmp_path)
    names = [layer.name for layer in network.graph.layers]
    assert len(set(names)) == len(NASTY)
    assert all(re.fullmatch("[a-z][a-z0-9_]{0,50}", name) for name in names)
    assert not RESERVED.intersection(names)
    titles = [layer.title or "" for layer in network.graph.layers]
    assert all(title.isprintable() and len(title) <= 120 for title in titles)


@given(st.lists(st.text(max_size=60), max_size=30))
@settings(max_examples=100, deadline=None)
def test_any_titles_get_unique_identifiers(titles: list[str]) -> None:
    namer = Namer()
    names = [namer.name(title, "conv") for title in titles]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[a-z][a-z0-9_]*", name) for name in names)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_files_give_a_user_error_or_a_network(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any bytes of a good file replaced, cut or doubled."""
    nodes = [node("Conv", "x w", "c", pads=[1, 1, 1, 1]), node("Relu", "c", "r"),
             node("MaxPool", "r", "m", kernel_shape=[2, 2]), node("Flatten", "m", "f"),
             node("Gemm", "f g", "y")]  # fmt: skip
    content = bytearray(
        build(nodes, {"w": random(1, 2, 4, 3, 3), "g": random(2, 112, 3)}).SerializeToString()
    )
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["set", "cut", "double"]))
        if kind == "set":
            content[place] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del content[place : place + data.draw(st.integers(1, 40))]
        else:
            content[place:place] = content[place : place + 8]
        content = content or bytearray(b"\0")
    path = tmp_path_factory.mktemp("damaged") / "model.onnx"
    path.write_bytes(bytes(content))
    try:
        load_onnx(path)
    except UserError as error:
        assert "\n" not in str(error)


def test_memory_is_refused_before_it_is_taken() -> None:
    budget = Budget(free=1 << 30)
    budget.take(600 << 20, "tensor a")
    with pytest.raises(UserError, match="^tensor b must fit the free memory of 716 MiB, not need"):
        budget.take(200 << 20, "tensor b")
    budget.take(100 << 20, "tensor c")


def test_unknown_weights_option_is_refused(tmp_path: Path) -> None:
    path = save(
        build([node("Conv", "x w", "y")], {"w": random(1, 8, 4, 3, 3)}), tmp_path / "m.onnx"
    )
    with pytest.raises(UserError, match="^WEIGHTS must be seeded"):
        load_onnx(path, "file.pth")
