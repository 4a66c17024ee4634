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

from formats.errors import UserError, run_cli
from model_prep import weights
from model_prep.networks.spec import NetworkSpec

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


def last_weight(state: State, value: float) -> State:
    state["classifier.weight"][4, 479] = value
    return state


# What a file holds, and what is said of it; {} is its path.
FIT, FINITE = "^WEIGHTS {} must fit small, not have ", "^WEIGHTS {} must be finite in float32, but "
PLAIN = "^WEIGHTS {} must hold dense tensors of real numbers under names, not "
REFUSED: dict[str, tuple[Callable[[State], object], str]] = {
    "missing": (lambda state: {n: x for n, x in state.items() if n != "features.0.bias"},
                FIT + r"missing tensors: features\.0\.bias \[6\]$"),
    "all missing": (lambda state: {}, FIT + r"missing tensors: .* and 1 more$"),
    "unknown": (lambda state: state | {"features.9.bias": torch.zeros(2, 3)},
                FIT + r"unknown tensors: features\.9\.bias \[2, 3\]$"),
    "shape": (lambda state: state | {"features.0.weight": torch.zeros(6, 3, 5, 5)},
              FIT + r"wrong tensors: features\.0\.weight must have shape \[6, 3, 3, 3\], "
              r"not \[6, 3, 5, 5\]$"),
    "as many values": (lambda state: state | {"classifier.weight": state["classifier.weight"].T},
                       FIT + "wrong tensors"),
    **{
        f"{value}": (lambda state, value=value: last_weight(state, value),
                     FINITE + r"tensor classifier\.weight holds NaN or Inf$")
        for value in (float("nan"), float("inf"), -float("inf"))
    },
    "double": (lambda state: state | {
        "classifier.bias": torch.full((5,), 1e300, dtype=torch.float64)}, FINITE + "tensor class"),
    **{
        f"{type(value).__name__} {name}": (
            lambda state, value=value: state | {"features.0.bias": value},
            PLAIN + type(value).__name__ + r" under 'features\.0\.bias'; save model\.state_dict",
        )
        for name, value in {
            "sparse": torch.eye(6).to_sparse(), "complex": torch.zeros(6, dtype=torch.complex64),
            "meta": torch.zeros(6, device="meta"), "3": 3, "of numbers": [1.0, 2.0], "": None,
        }.items()
    },
    "no name": (lambda state: {7: torch.zeros(1)}, PLAIN + "Tensor under 7; save"),
    **{
        f"only {content}": (
            lambda state, content=content: content,
            f"^WEIGHTS must hold a dictionary of tensors, not {{}} with a {type(content).__name__}",
        )
        for content in (torch.zeros(3), [torch.zeros(3)], 4, "text")
    },
    "module": (lambda state: torch.nn.Linear(2, 2), NO_CHECKPOINT),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_contents_that_are_refused(
    small: NetworkSpec, state: State, checkpoint: Save, case: str
) -> None:
    content, text = REFUSED[case]
    path = checkpoint(content(state))
    with pytest.raises(UserError, match=text.replace("{}", str(path))):
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
