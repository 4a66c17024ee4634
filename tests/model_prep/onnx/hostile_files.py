# SPDX-License-Identifier: Apache-2.0
"""Writes a folder of broken and hostile ONNX files: name -> (file, what its error must say)."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from onnx import ModelProto, StringStringEntryProto, TensorProto, helper, numpy_helper
from onnx_models import build, node, random, save

W = {"w": random(1, 8, 4, 3, 3)}
CONV = node("Conv", "x w", "y")
HUGE = 1 << 40


def _raw(dims: list[int], data_type: int = TensorProto.FLOAT, raw: bytes = b"") -> TensorProto:
    return TensorProto(name="w", dims=dims, data_type=data_type, raw_data=raw)


def _with(tensor: TensorProto) -> ModelProto:
    """The one-convolution model with another weight tensor."""
    model = build([CONV])
    model.graph.initializer.append(tensor)
    return model


def _external(location: str, offset: str = "0", length: str = "1152") -> ModelProto:
    tensor = TensorProto(name="w", dims=[8, 4, 3, 3], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.append(StringStringEntryProto(key=key, value=value))
    return _with(tensor)


def _weights(array: np.ndarray) -> ModelProto:
    return _with(numpy_helper.from_array(array, "w"))


def _changed(change: Callable[[ModelProto], object], **more: object) -> ModelProto:
    """The one-convolution model after `change`."""
    model = build([CONV], W, **more)  # type: ignore[arg-type]
    change(model)
    return model


def _values(name: str, count: int) -> list:
    return [helper.make_tensor_value_info(f"{name}{i}", 1, [1, 4, 9, 8]) for i in range(count)]


def _branch(model: ModelProto) -> None:
    body = helper.make_graph([helper.make_node("Identity", ["y"], ["z"])], "b", [], [])
    made = helper.make_node("If", ["y"], ["q"], name="cond", then_branch=body, else_branch=body)
    model.graph.node.append(made)


def _not_utf8(path: Path) -> None:
    good = build([CONV], W).SerializeToString()
    path.write_bytes(good.replace(b"node_y", b"no\xff\xfe_y"))


def _constant_of_shape(dims: list[int]) -> ModelProto:
    nodes = [node("ConstantOfShape", "s", "w"), CONV]
    return build(nodes, {"s": np.array(dims, np.int64)})


def _doubling(levels: int) -> ModelProto:
    """Every Concat joins the one before with itself: 2^levels parts."""
    nodes = [node("Conv", "x w", "k0")]
    nodes += [node("Concat", f"k{i} k{i}", f"k{i + 1}", axis=1) for i in range(levels)]
    return build(nodes, W, output=f"k{levels}")


def _nodes(count: int) -> ModelProto:
    """A long chain with an operator that nobody has at its end."""
    nodes = [node("Conv", "x w", "n0")]
    nodes += [node("Identity", f"n{i}", f"n{i + 1}") for i in range(count)]
    return build([*nodes, node("Bogus", f"n{count}", "y")], W)


def _unsupported(path: Path) -> None:
    nodes = [node("Conv", "x w", "c"), node("PRelu", "c w", "l"), node("Einsum", "l", "e"),
             node("Resize", "l", "y")]  # fmt: skip
    save(build(nodes, W), path)


def models() -> dict[str, tuple[ModelProto, str]]:
    """Those that are protobufs."""
    nan, inf = W["w"].copy(), W["w"].copy()
    nan[1, 2, 0, 1], inf[0, 0, 0, 0] = np.nan, np.inf
    strings = TensorProto(name="w", dims=[1], data_type=TensorProto.STRING, string_data=[b"a"])
    conv = {"in_shape": (1, 4, 9, 8)}
    return {
        "empty_graph": (build([]), "at least one node"),
        "no_graph": (ModelProto(ir_version=8), "no graph"),
        "cycle": (build([node("Add", "x b", "a"), node("Relu", "a", "b")], output="b"), "a cycle"),
        "self_cycle": (build([node("Relu", "y", "y")]), "a cycle"),
        "missing_initializer": (build([CONV]), "reads w, which must be an initialiser"),
        "missing_input": (build([node("Relu", "nowhere", "y")]), "reads nowhere, which must be"),
        "duplicate_output": (build([CONV, CONV], W), "tensor y must be computed once"),
        "duplicate_initializer": (
            _changed(lambda m: m.graph.initializer.append(m.graph.initializer[0])), "not w",
        ),
        "output_is_initializer": (build([node("Conv", "x w", "w")], W), "w must be computed once"),
        "output_missing": (build([CONV], W, output="z"), "output z must be computed"),
        "dynamic_rows": (build([CONV], W, (1, 4, "h", 8)), "must have fixed channels"),
        "zero_rows": (build([CONV], W, (1, 4, 0, 8)), "must have positive sizes"),
        "negative_rows": (build([CONV], W, (1, 4, -3, 8)), "must have positive sizes"),
        "huge_rows": (build([CONV], W, (1, 4, 1 << 50, 8)), "must have at most"),
        "huge_input": (build([CONV], W, (1, 1 << 19, 30000, 30000)), "fit the free memory"),
        "input_of_rank_3": (build([CONV], W, (4, 9, 8)), "must be a map"),
        "input_of_rank_1": (build([CONV], W, (4,)), "must have 2 axes"),
        "input_without_shape": (
            _changed(lambda m: m.graph.input[0].type.tensor_type.ClearField("shape")), "4 .batch",
        ),
        "input_of_strings": (
            _changed(lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 8)),
            "must be a tensor of float",
        ),
        "no_input": (_changed(lambda m: m.graph.ClearField("input")), "one input, not 0"),
        "two_inputs": (_changed(lambda m: m.graph.input.extend(_values("i", 1))), "not 2"),
        "strange_output": (
            _changed(lambda m: m.graph.output.extend(_values("o", 1))), "output o0 must be computed"
        ),
        "same_outputs": (
            _changed(lambda m: m.graph.output.extend([*m.graph.output])), r"not 2 \(y, y\)"
        ),
        "no_output": (_changed(lambda m: m.graph.ClearField("output")), "1 to 64 different"),
        "opset_6": (build([CONV], W, opset=6), "opset must be 7 to 22, not 6"),
        "opset_23": (build([CONV], W, opset=23), "opset must be 7 to 22, not 23"),
        "opset_missing": (_changed(lambda m: m.ClearField("opset_import")), "one version"),
        "foreign_domain": (
            _changed(lambda m: setattr(m.graph.node[0], "domain", "com.evil")),
            "of domain com.evil",
        ),
        "subgraph": (_changed(_branch), r"If \(cond\): not an operator"),
        "functions": (_changed(lambda m: m.functions.add(name="Relu")), "must not define"),
        "declared_huge": (_with(_raw([HUGE, HUGE, 3, 3])), "fit the free memory"),
        "declared_negative": (_with(_raw([8, -4, 3, 3])), "sizes of 0 or more"),
        "declared_zero": (_with(_raw([0, 4, 3, 3])), "4 axes of positive size"),
        "declared_more_than_there_is": (
            _with(_raw([8, 4, 3, 3], raw=b"1234")), "must have 1152 bytes",
        ),
        "zero_times_huge": (_with(_raw([0, 1 << 62, 1 << 62])), "tensor w|4 axes"),
        "unknown_type": (_with(_raw([1], 99, b"1234")), "float or integer type"),
        "string_weights": (_with(strings), "float or integer type, not STRING"),
        "int64_weights": (_weights(np.ones((8, 4, 3, 3), np.int64)), "float numbers, not int64"),
        "nan_weights": (_weights(nan), "finite"),
        "inf_weights": (_weights(inf), "finite"),
        "double_overflow": (_weights(np.full((8, 4, 3, 3), 1e300)), "finite"),
        "wrong_channels": (_weights(random(1, 8, 5, 3, 3)), "must fit 4 channels"),
        "rank_3_weights": (_weights(random(1, 8, 4, 3)), "4 axes"),
        "kernel_too_large": (_weights(random(1, 8, 4, 30, 3)), "must fit its padded input"),
        "broadcast_huge": (_constant_of_shape([1 << 20] * 2), "fit the free memory"),
        "broadcast_absurd": (_constant_of_shape([1 << 62] * 4), r"0 to 2\^31"),
        "attribute_unknown": (build([node("Conv", "x w", "y", evil=3)], W), "attribute evil"),
        "attribute_type": (build([node("Conv", "x w", "y", strides="2")], W), "of type INTS"),
        "attribute_twice": (
            _changed(lambda m: m.graph.node[0].attribute.extend(
                [helper.make_attribute("group", 1)] * 2)), "once only",
        ),
        "stride_0": (build([node("Conv", "x w", "y", strides=[0, 1])], W), "strides must be 1"),
        "group_0": (build([node("Conv", "x w", "y", group=0)], W), "in 0 groups"),
        "group_negative": (build([node("Conv", "x w", "y", group=-4)], W), "in -4 groups"),
        "pads_huge": (build([node("Conv", "x w", "y", pads=[HUGE] * 4)], W), "pads must be 0"),
        "pads_negative": (build([node("Conv", "x w", "y", pads=[-1] * 4)], W), "pads must be 0"),
        "pads_two": (build([node("Conv", "x w", "y", pads=[1, 1])], W), "pads must have 4"),
        "no_weights": (build([node("Conv", "x", "y")], W), "input 1 must be a constant"),
        "weights_from_input": (build([node("Conv", "x x", "y")], W), "input 1 must be a constant"),
        "nothing_computed": (build([node("Identity", "x", "y")]), "must compute something"),
        "constant_output": (build([node("Identity", "w", "y")], W), "must depend on its input"),
        "pool_of_input": (build([node("MaxPool", "x", "y", kernel_shape=[2, 2])]), "must not read"),
        "channels_of_rows": (
            build([node("Conv", "x w", "c"), node("Slice", "c one two three", "y")],
                  W | {"one": np.array([0]), "two": np.array([2]), "three": np.array([2])}),
            "not rows or columns",
        ),
        "split_of_others": (
            build([node("Conv", "x w", "c"), node("Split", "c sizes", "y", axis=1)],
                  W | {"sizes": np.array([3, 5])}), "1 outputs must share 8 elements",
        ),
        "doubling_concats": (_doubling(60), "at most|free memory"),
        "many_nodes": (_nodes(20_000), r"Bogus \(node_y\): not an operator"),
        "external_absolute": (_external("/etc/passwd"), "inside the model's folder"),
        "external_above": (_external("../secret.bin"), "inside the model's folder"),
        "external_symlink": (_external("link.bin"), "inside the model's folder"),
        "external_missing": (_external("absent.bin"), "in the file absent.bin"),
        "external_folder": (_external("."), "inside the model's folder|in the file"),
        "external_fifo": (_external("pipe.bin"), "in the file pipe.bin"),
        "external_beyond": (_external("data.bin", offset="100000"), "must have 1152 bytes"),
        "external_length": (_external("data.bin", length="99999999999999999"), "a number"),
        "external_offset": (_external("data.bin", offset="-1"), "a number"),
        "name_quote": (
            build([node("Conv", "x w", "c"), helper.make_node(
                "Bogus", ["c"], ["y"], name='x"); system("touch owned')], W), "Bogus",
        ),
        "name_control": (
            build([node("Conv", "x w", "c"), helper.make_node(
                "Bogus", ["c"], ["y"], name="a\x1b[2J\r\n\0error: fine")], W), "Bogus",
        ),
        "name_long": (
            build([node("Conv", "x w", "c"), helper.make_node(
                "Bogus" * 20_000, ["c"], ["y"], name="n" * 1_000_000)], W), "BogusBogus",
        ),
        "wrong_rank_matmul": (
            build([node("Conv", "x w", "c"), node("MatMul", "c w", "y")], W), "must have 2 axes",
        ),
        "add_of_different": (
            build([node("Conv", "x w", "c"), node("Conv", "x w", "d", pads=[1] * 4),
                   node("Add", "c d", "y")], W, **conv), "equal sizes",
        ),
    }  # fmt: skip


def write(folder: Path) -> dict[str, tuple[Path, str]]:
    """Write all files into `folder`; external data and the link lie beside them."""
    (folder / "data.bin").write_bytes(bytes(1152))
    (folder.parent / "secret.bin").write_bytes(bytes(1152))
    (folder / "link.bin").symlink_to(folder.parent / "secret.bin")
    os.mkfifo(folder / "pipe.bin")
    found = {
        name: (save(model, folder / f"{name}.onnx"), text)
        for name, (model, text) in models().items()
    }
    good = build([CONV], W).SerializeToString()
    plain = {
        "empty": (b"", "1 to"), "truncated": (good[: len(good) // 2], "does not parse"),
        "random": (np.random.default_rng(1).bytes(5000), "does not parse|no graph"),
        "text": (b"import os; os.remove('x')\n" * 10, "does not parse|no graph"),
        "zeros": (bytes(4096), "does not parse|no graph"),
    }  # fmt: skip
    for name, (content, text) in plain.items():
        found[name] = (folder / f"{name}.onnx", text)
        found[name][0].write_bytes(content)
    (folder / "folder.onnx").mkdir()
    os.mkfifo(folder / "fifo.onnx")
    (folder / "loop.onnx").symlink_to("loop.onnx")
    for name in ("folder", "fifo", "loop", "absent"):
        found[name] = (folder / f"{name}.onnx", "must be an existing file")
    found["not_utf8"] = (folder / "not_utf8.onnx", "must have names in UTF-8")
    _not_utf8(found["not_utf8"][0])
    found["unsupported"] = (
        folder / "unsupported.onnx",
        r"PRelu \(node_l\): .*Einsum \(node_e\).*Resize \(node_y\)",
    )
    _unsupported(found["unsupported"][0])
    return found
