# SPDX-License-Identifier: Apache-2.0
"""The contract as code: constants once, schema and reader agree, validation stands alone."""

import ast
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from nuq.formats import network
from nuq.formats.ending import Output
from nuq.formats.errors import UserError
from nuq.formats.rules import check_network
from nuq.formats.schema import check
from tests.checkout import ROOT, python
from tests.toys import Toy, ToyLayer, write_toy

WORDS = {"KINDS", "SCHEMES"}  # which kinds and schemes, a module says
CONTRACT = ("arithmetic", "network", "quantizer", "rules")


def constants(path: Path) -> set[str]:
    """Names in capitals that a module assigns."""
    targets = [
        target
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign)
        for target in node.targets
    ]
    names = [name for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    return {name.id for name in names if name.id.isupper()}


def test_constants_of_the_contract_are_defined_once() -> None:
    own = {name for module in CONTRACT for name in constants(ROOT / "formats" / f"{module}.py")}
    assert {"LRN_ENTRIES", "RECIPROCAL_BITS", "LRN_FACTOR_BITS", "BLOCK_CODES"} <= own
    places: dict[str, list[str]] = {}
    for package in ("formats", "model_prep", "codegen", "board"):
        for path in (ROOT / package).rglob("*.py"):
            for name in constants(path) & (own - WORDS | {"FEATURE_MAP_PORTS", "WEIGHTS"}):
                places.setdefault(name, []).append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_toy(tmp_path / "quantized", Toy(layers=[ToyLayer(8), ToyLayer(4)]))
    return tmp_path / "quantized"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m: m, None),
        (lambda m: m.update(qm=99), "$.qm: 99 is greater than the maximum of 16"),
        (lambda m: m.update(qm=True), "$.qm: True is not of type 'integer'"),
        (lambda m: m.pop("qm"), "$: 'qm' is a required property"),
        (lambda m: m.update(odd=1), "$: Additional properties are not allowed ('odd' was"),
        (lambda m: m.update(network="A"), "$.network: 'A' does not match"),
        (lambda m: m["layers"][0].update(kind="x"), "$.layers[0].kind: 'x' is not one of"),
        (lambda m: m["layers"][0].update(pads=[0]), "$.layers[0].pads: [0] is too short"),
        (lambda m: m["layers"][0].update(inputs=[]), "$.layers[0].inputs: [] is too short"),
        (lambda m: m["layers"][0]["quantizer"].update(bits="3"), "$.layers[0].quantizer.bits: "),
    ],
)
def test_the_reader_says_what_the_schema_says(
    folder: Path, change: Callable[[dict[str, Any]], object], text: str | None
) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    fault = check(network.schema(), manifest)
    valid = jsonschema.Draft202012Validator(network.schema()).is_valid(manifest)
    assert valid == (fault is None) == (text is None)
    assert fault is None or (text and fault.startswith(text))


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ({"kind": "softmax", "axis": 4}, r"ending: softmax must be along axis 0\.\.3, not 4"),
        (
            {"kind": "transpose", "sizes": [0, 1]},
            r"ending: transpose must order 4 axes, not \[0, 1",
        ),
        ({"kind": "reshape", "sizes": [1, 7]}, "ending: reshape must keep the .* values"),
        ({"kind": "sqrt"}, r"\$.outputs\[0\].ending\[0\].kind: 'sqrt' is not one of"),
    ],
)
def test_an_ending_that_does_not_fit_is_refused(
    folder: Path, step: dict[str, Any], text: str
) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    output = {"name": "y", "layer": manifest["layers"][-1]["name"], "ending": [step]}
    path.write_text(json.dumps({**manifest, "outputs": [output]}))
    with pytest.raises(UserError, match=text):
        network.load(folder)


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        ((0,), "outputs must be of all heads, .*, and of nothing else, not of"),
        ((0, -1), "outputs must be of all heads, .*, and of nothing else, not of"),
        ((-1, -1), "outputs must have names of their own, not y, y"),
    ],
)
def test_outputs_that_are_no_heads_are_refused(
    folder: Path, layers: tuple[int, ...], text: str
) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    outputs = [{"name": "y", "layer": manifest["layers"][index]["name"]} for index in layers]
    if layers == (0, -1):
        outputs[0]["name"] = "z"
    path.write_text(json.dumps({**manifest, "outputs": outputs}))
    with pytest.raises(UserError, match=text):
        network.load(folder)


def test_a_head_that_is_read_is_refused(folder: Path) -> None:
    made = network.load(folder)
    raw = replace(made.layers[0], quantizer=None, requant_shift=None, pool=None)
    shapes = {"in_shape": raw.out_shape, "conv_shape": raw.out_shape}
    wide = replace(
        raw, name="other", kind="add", inputs=(raw.name,) * 2, in_aligns=(0, 0), **shapes
    )
    outputs = (Output("a", raw.name), Output("b", "other"))
    broken = replace(made, layers=(raw, wide), outputs=outputs, concats={})
    with pytest.raises(UserError, match=f"^layer other: it must not read a head, {raw.name}"):
        check_network(broken)


def test_validation_needs_no_other_package(folder: Path, tmp_path: Path) -> None:
    """The reader refuses a bad manifest also where nothing but `formats` is installed."""
    shutil.copytree(ROOT / "formats", tmp_path / "alone" / "nuq" / "formats")
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "qm": 99}))
    program = (
        "import sys; from pathlib import Path; from nuq.formats.network import load\n"
        "try: load(Path(sys.argv[1]))\n"
        "except ValueError as error: print(error)"
    )
    alone = tmp_path / "alone"
    done = python("-P", "-c", program, str(folder), folder=alone, PYTHONPATH=str(alone))
    assert "manifest.json must follow its schema: $.qm: 99 is greater" in done.stdout
