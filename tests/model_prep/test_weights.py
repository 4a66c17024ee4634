# SPDX-License-Identifier: Apache-2.0
"""Weights from files, in every usual form, and every way in which a file can be wrong."""

import hashlib
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from nuq.formats.errors import UserError, run_cli
from nuq.model_prep import weights
from nuq.model_prep.networks.spec import NetworkSpec

State = dict[str, torch.Tensor]
Save = Callable[..., Path]
PIXELS = np.random.default_rng(1).integers(0, 256, (4, 3, 20, 16), dtype=np.uint8)
NO_CHECKPOINT = "^WEIGHTS must be a state_dict saved by torch.save, not {} [(].+[)]; save model"


class Malicious:
    """Makes a file when it is unpickled without care."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.marker), "w")


def assert_loaded(spec: NetworkSpec, path: Path, state: State) -> None:
    result = weights.load(spec, str(path), PIXELS)
    assert result.origin == "file"
    for layer, prefix in zip(result.graph.layers, ("features.0", "classifier"), strict=True):
        expected = state[f"{prefix}.weight"].detach().float().numpy()
        assert layer.weight.dtype == layer.bias.dtype == np.float32
        np.testing.assert_array_equal(layer.weight.reshape(expected.shape), expected)
        np.testing.assert_array_equal(layer.bias, state[f"{prefix}.bias"].detach().float().numpy())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {f"model.{name}": value for name, value in state.items()},
        lambda state: {f"module._orig_mod.{name}": value for name, value in state.items()},
        lambda state: dict(reversed(state.items())),
        lambda state: {name: torch.nn.Parameter(value) for name, value in state.items()},
        lambda state: {name: value.half() for name, value in state.items()},
        lambda state: {name: value.bfloat16() for name, value in state.items()},
        lambda state: {name: value.double() for name, value in state.items()},
        lambda state: {name: value.T.contiguous().T for name, value in state.items()},
    ],
    ids=["plain", "state_dict", "module", "both", "model", "compiled",
         "reversed", "parameters", "half", "bfloat16",
         "double", "strided"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:The use of `x.T` on tensors")
def test_every_usual_form_of_a_checkpoint_is_read(
    small: NetworkSpec, state: State, checkpoint: Save, wrap: Callable[[State], object]
) -> None:
    content = wrap(state)
    inner = content.get("state_dict", content)
    prefixes = r"^(module\.|_orig_mod\.|model\.)*"
    expected = {re.sub(prefixes, "", name): value for name, value in inner.items()}
    assert_loaded(small, checkpoint(content), expected)


def test_old_format_of_torch_is_read(small: NetworkSpec, state: State, tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert_loaded(small, path, state)


def test_hash_covers_every_number_in_order(
    small: NetworkSpec, state: State, checkpoint: Save
) -> None:
    digest = hashlib.sha256()
    for name in small.state_shapes:
        digest.update(state[name].numpy().tobytes())
    path = checkpoint(state)
    assert weights.load(small, str(path), PIXELS).sha256 == digest.hexdigest()
    for name in small.state_shapes:
        other = {key: value.clone() for key, value in state.items()}
        other[name].view(-1)[-1] += 1
        changed = weights.load(small, str(checkpoint(other)), PIXELS).sha256
        assert changed != digest.hexdigest()


def test_missing_tensor(small: NetworkSpec, state: State, checkpoint: Save) -> None:
    del state["features.0.bias"]
    path = checkpoint(state)
    text = f"^WEIGHTS {path} must fit small, not have missing tensors: features.0.bias \\[6\\]$"
    with pytest.raises(UserError, match=text):
        weights.load(small, str(path), PIXELS)


def test_extra_tensor(small: NetworkSpec, state: State, checkpoint: Save) -> None:
    path = checkpoint(state | {"features.9.bias": torch.zeros(2, 3)})
    text = f"^WEIGHTS {path} must fit small, not have unknown tensors: features.9.bias \\[2, 3\\]$"
    with pytest.raises(UserError, match=text):
        weights.load(small, str(path), PIXELS)


def test_tensor_of_another_shape(small: NetworkSpec, state: State, checkpoint: Save) -> None:
    path = checkpoint(state | {"features.0.weight": torch.zeros(6, 3, 5, 5)})
    text = (
        f"WEIGHTS {path} must fit small, not have wrong tensors: features.0.weight must have "
        "shape [6, 3, 3, 3], not [6, 3, 5, 5]"
    )
    with pytest.raises(UserError, match=f"^{re.escape(text)}$"):
        weights.load(small, str(path), PIXELS)


def test_same_number_of_values_in_another_shape_is_refused(
    small: NetworkSpec, state: State, checkpoint: Save
) -> None:
    path = checkpoint(state | {"classifier.weight": state["classifier.weight"].T.clone()})
    with pytest.raises(UserError, match=f"^WEIGHTS {path} must fit small, not have wrong tensors"):
        weights.load(small, str(path), PIXELS)


def test_another_networks_checkpoint_is_one_short_sentence(
    small: NetworkSpec, digits: NetworkSpec
) -> None:
    with pytest.raises(UserError) as caught:
        weights.load(small, str(digits.packaged), PIXELS)
    text = str(caught.value)
    assert text.startswith(f"WEIGHTS {digits.packaged} must fit small, not have missing tensors: ")
    assert "features.0.weight [6, 3, 3, 3]" in text
    assert "; unknown tensors: conv1.weight [24, 1, 3, 3], " in text
    assert text.endswith(" and 7 more")
    assert "\n" not in text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite(
    small: NetworkSpec, state: State, checkpoint: Save, value: float
) -> None:
    state["classifier.weight"][4, 479] = value
    path = checkpoint(state)
    text = (
        f"^WEIGHTS {path} must be finite in float32, but tensor classifier.weight holds NaN or Inf$"
    )
    with pytest.raises(UserError, match=text):
        weights.load(small, str(path), PIXELS)


def test_double_beyond_float32_is_refused(
    small: NetworkSpec, state: State, checkpoint: Save
) -> None:
    state["classifier.bias"] = torch.full((5,), 1e300, dtype=torch.float64)
    with pytest.raises(UserError, match="^WEIGHTS .* must be finite in float32, but tensor class"):
        weights.load(small, str(checkpoint(state)), PIXELS)


@pytest.mark.parametrize(
    "value",
    [
        torch.eye(6).to_sparse(),
        torch.zeros(6, dtype=torch.complex64),
        torch.zeros(6, device="meta"),
        3,
        [1.0, 2.0],
        None,
    ],
    ids=["sparse", "complex", "meta", "int", "list", "none"],
)
def test_value_that_is_no_plain_tensor(
    small: NetworkSpec, state: State, checkpoint: Save, value: object
) -> None:
    path = checkpoint(state | {"features.0.bias": value})
    text = (
        f"^WEIGHTS {path} must hold dense tensors of real numbers under names, "
        f"not {type(value).__name__} under 'features.0.bias'; save model.state_dict"
    )
    with pytest.raises(UserError, match=text):
        weights.load(small, str(path), PIXELS)


def test_names_must_be_names(small: NetworkSpec, state: State, checkpoint: Save) -> None:
    with pytest.raises(UserError, match=r"^WEIGHTS .* under names, not Tensor under 7; save"):
        weights.load(small, str(checkpoint({7: torch.zeros(1)})), PIXELS)


@pytest.mark.parametrize("content", [torch.zeros(3), [torch.zeros(3)], 4, "text"])
def test_content_that_is_no_dictionary(
    small: NetworkSpec, checkpoint: Save, content: object
) -> None:
    path = checkpoint(content)
    text = (
        f"^WEIGHTS must hold a dictionary of tensors, not {path} with a {type(content).__name__};"
    )
    with pytest.raises(UserError, match=text):
        weights.load(small, str(path), PIXELS)


def test_empty_dictionary_lacks_everything(small: NetworkSpec, checkpoint: Save) -> None:
    with pytest.raises(UserError, match=r"^WEIGHTS .* missing tensors: .* and 1 more$"):
        weights.load(small, str(checkpoint({})), PIXELS)


@pytest.mark.parametrize("name", ["nothing.pth", "."])
def test_file_that_does_not_exist(small: NetworkSpec, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(UserError, match=f"^WEIGHTS must be an existing file, not {path}$"):
        weights.load(small, str(path), PIXELS)


@pytest.mark.parametrize(
    "content", [b"", b"hello\n", b"\x80\x02.", bytes(range(256)) * 9, b"PK\x03\x04" + bytes(90)]
)
def test_file_that_is_no_checkpoint(small: NetworkSpec, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=NO_CHECKPOINT.format(path)) as caught:
        weights.load(small, str(path), PIXELS)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("modern", [True, False])
def test_damaged_checkpoints_never_end_in_a_traceback(
    small: NetworkSpec, state: State, tmp_path: Path, modern: bool
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(state, path, _use_new_zipfile_serialization=modern)
    good = path.read_bytes()
    random = np.random.default_rng(5)
    refused = 0
    for turn in range(90):
        damaged = bytearray(good)
        if turn % 3 == 0:
            del damaged[int(random.integers(len(damaged))) :]
        else:
            end = 1500 if turn % 2 else len(damaged)
            for place in random.integers(0, end, 3):
                damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            weights.load(small, str(path), PIXELS)
        except UserError as error:
            refused += 1
            assert str(error).startswith("WEIGHTS ")
            assert "\n" not in str(error)
    assert refused > 45


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("save", ["torch", "torch-old", "pickle"])
def test_code_in_a_checkpoint_never_runs(
    small: NetworkSpec, state: State, tmp_path: Path, save: str
) -> None:
    path, marker = tmp_path / "weights.pth", tmp_path / "code-ran"
    content = state | {"hook": Malicious(marker)}
    if save == "pickle":
        path.write_bytes(pickle.dumps(Malicious(marker)))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=save == "torch")
    text = NO_CHECKPOINT.format(path).replace(".+", "it holds other things than tensors")
    with pytest.raises(UserError, match=text):
        weights.load(small, str(path), PIXELS)
    assert not marker.exists()
    # The file is what it says: read without care, it does run its code.
    if save == "pickle":
        pickle.loads(path.read_bytes()).close()
    else:
        torch.load(path, weights_only=False)["hook"].close()
    assert marker.exists()


def test_whole_module_is_refused(small: NetworkSpec, checkpoint: Save) -> None:
    path = checkpoint(torch.nn.Linear(2, 2))
    with pytest.raises(UserError, match=NO_CHECKPOINT.format(path)):
        weights.load(small, str(path), PIXELS)


def test_unreadable_file_is_not_called_damaged(
    small: NetworkSpec, state: State, checkpoint: Save, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = checkpoint(state)

    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(torch, "load", refuse)

    def main(argv: list[str]) -> int:
        weights.load(small, str(path), PIXELS)
        return 0

    assert run_cli(main, []) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {path} must be accessible, not fail with: Permission denied")
    assert err.count("\n") == 1
