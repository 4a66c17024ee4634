# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of digits at few bits, its files through the ordinary stages, and bad inputs."""

import json
from pathlib import Path

import digits_network as digits
import numpy as np
import pytest
import torch

from nuq.formats import network as manifest
from nuq.formats.commands import main
from nuq.formats.errors import UserError, run_cli
from nuq.model_prep import weights
from nuq.model_prep.quantize.plan import Plan, Settings
from nuq.model_prep.quantize.plan_file import resolve
from nuq.model_prep.source import Recipe, open_source
from nuq.model_prep.training import finetune

PLAN = "bits = 2\nweight_bits = 3\n"


def tune(folder: Path, *more: str, plan: str = PLAN) -> dict[str, object]:
    """finetune.json of a run of digits in `folder`."""
    (folder / "plan.toml").write_text(plan)
    words = ["finetune", "NET=digits", f"PLAN={folder / 'plan.toml'}"]
    assert main([*words, "EPOCHS=3", "LR=0.003", f"OUT={folder}", *more]) == 0
    return json.loads((folder / "finetuned" / "finetune.json").read_text())


def quantized(folder: Path) -> manifest.Network:
    """What `quantize` makes of a run's files."""
    made = folder / "finetuned"
    words = [f"WEIGHTS={made / 'weights.pth'}", f"PLAN={made / 'plan.toml'}"]
    assert main(["quantize", "NET=digits", *words, "IMAGES=360", f"OUT={folder}"]) == 0
    return manifest.load(folder / "quantized")


def plan_in(folder: Path) -> Plan:
    """The plan of a run."""
    path = folder / "finetuned" / "plan.toml"
    return resolve(digits.graph(), Settings(), Settings(scheme="knq", bits=3), path)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> tuple[Path, dict[str, object]]:
    folder = tmp_path_factory.mktemp("tuned")
    return folder, tune(folder)


def test_accuracy_improves(tuned):
    _, result = tuned
    assert result["float_top1"] > 98
    assert result["before_top1"] < 80  # 47.5
    assert result["tuned_top1"] > 93
    for name in ("before", "tuned"):
        found = result["paired"][name]
        change = result[f"{name}_top1"] - result["float_top1"]
        assert found["top1"]["difference"] == pytest.approx(change)
        assert found["top1"]["low"] < change < found["top1"]["high"]
    far = [result["paired"][name]["divergence"]["mean"] for name in ("before", "tuned")]
    assert 0 < far[1] < far[0]
    assert result["integer_top1"] == result["tuned_top1"]  # all sums are below 2^24
    assert (result["integer_images"], result["integer_agreement"]) == (360, 100)
    assert result["loss"][-1] < result["loss"][0]


def test_the_ordinary_stages_give_the_trained_network(tuned):
    folder, result = tuned
    network, made = quantized(folder), folder / "finetuned"
    assert network.accuracy["integer_top1"] == result["integer_top1"]
    state = weights.read_state(digits.SPEC, made / "weights.pth")
    for layer, chosen in zip(network.layers, plan_in(folder).layers, strict=True):
        assert layer.weight_bits == 3
        exact = layer.weight * 2.0**-layer.weight_frac
        assert np.array_equal(exact.reshape(state[f"{layer.name}.weight"].shape),
                              state[f"{layer.name}.weight"])  # fmt: skip
        if layer.quantizer is not None:
            assert tuple(layer.quantizer.centroid.tolist()) == chosen.centroids
            assert layer.quantizer.frac == chosen.frac


def test_channel_scales_are_written_and_read(tmp_path):
    """Weights of 4 bits in steps of their channels come back as the same integers."""
    result = tune(tmp_path, "EPOCHS=1", plan=PLAN + 'weight_scale = "channel"\n')
    network, made = quantized(tmp_path), tmp_path / "finetuned"
    state = weights.read_state(digits.SPEC, made / "weights.pth")
    for layer, chosen in zip(network.layers, plan_in(tmp_path).layers, strict=True):
        assert layer.weight_scale is not None and np.abs(layer.weight).max() <= 3
        assert tuple(layer.weight_scale.tolist()) == chosen.weight_scales
        step = layer.weight_scale.reshape(-1, 1, 1, 1) * 2.0**-layer.weight_frac
        exact = (layer.weight * step).reshape(state[f"{layer.name}.weight"].shape)
        assert np.array_equal(exact.astype(np.float32), state[f"{layer.name}.weight"])
    assert network.accuracy["integer_top1"] == result["integer_top1"]


def test_centroids_are_trained(tuned):
    folder, _ = tuned
    plan = plan_in(folder)
    assert all(len(layer.centroids or ()) == 4 for layer in plan.layers[:-1])
    (folder / "start").mkdir(exist_ok=True)
    still = tune(folder / "start", "LR=1e-9", "EPOCHS=1")
    assert still["epochs"] == 1
    other = plan_in(folder / "start")
    assert [layer.frac for layer in plan.layers] == [layer.frac for layer in other.layers]
    assert [layer.centroids for layer in plan.layers] != [layer.centroids for layer in other.layers]


def test_a_seed_decides_everything_and_distillation_needs_no_labels(tmp_path, tuned):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        result = tune(tmp_path / name, "DISTIL=1", "SEED=4")
    files = [tmp_path / name / "finetuned" / "weights.pth" for name in ("a", "b")]
    one, other = (torch.load(file, weights_only=True) for file in files)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert result["distilled"] and result["integer_top1"] > 90
    plans = [(tmp_path / name / "finetuned" / "plan.toml").read_text() for name in ("a", "b")]
    assert plans[0] == plans[1]


def test_a_refined_network_is_what_is_trained(tmp_path, monkeypatch):
    started = []

    def nothing_learned(spec, network, teacher, images, options, seed):
        started.append((network.graph, teacher))
        return [0.0]

    monkeypatch.setattr(finetune, "train", nothing_learned)
    result = tune(tmp_path, "REFINE=equalise", "DISTIL=1", plan="bits = 2\n")
    ((begun, teacher),) = started
    packaged = digits.graph().layers
    for ours, learned, theirs in zip(begun.layers, teacher.layers, packaged, strict=True):
        assert np.array_equal(learned.weight, theirs.weight)  # of the float outputs to learn
        if ours.name == "conv1":
            assert not np.array_equal(ours.weight, theirs.weight)
    assert result["refine"] == ["equalise"]
    # 14-bit weights: the start is the refined network that `accuracy` measures, but for rounding
    assert result["before_top1"] == pytest.approx(96.67, abs=0.3)
    assert result["tuned_top1"] == pytest.approx(result["before_top1"], abs=0.3)
    assert "refine" not in (tmp_path / "finetuned" / "plan.toml").read_text()
    assert quantized(tmp_path).accuracy["integer_top1"] == result["integer_top1"]


def test_refined_weights_that_no_checkpoint_holds_are_refused(monkeypatch):
    def refuse(source, graph):
        raise UserError("layer conv1: a checkpoint must be able to hold its weights")

    monkeypatch.setattr(finetune, "state_of", refuse)
    source = open_source("digits", None, Recipe())
    with pytest.raises(UserError, match="^REFINE must leave out equalise to fine-tune digits: lay"):
        finetune._check_stored(source, source.graph)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["EPOCHS=0"], "EPOCHS must be an integer of 1 or more, not '0'"),
        (["LR=0"], "LR must be a number above 0 and below 1, not '0'"),
        (["MINIBATCH=0"], "MINIBATCH must be an integer from 1 to 4096, not '0'"),
        (
            ["WEIGHT_SCHEME=kmeans"],
            "weight_scheme of layer conv1 must be uniform to fine-tune",
        ),
        (["DATA=missing.npz"], "DATA must be a folder of images or an .npz file"),
    ],
)
def test_bad_options(words, sentence, tmp_path, capsys):
    assert run_cli(main, ["finetune", "NET=digits", f"OUT={tmp_path}", *words]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "finetuned").exists()


def test_labels_are_needed_unless_distilling(small, tmp_path):
    images = np.zeros((10, 24, 24, 3), np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    with pytest.raises(UserError, match="DATA must have a label for every image.*DISTIL=1"):
        finetune.load_images(small, str(tmp_path / "images.npz"), None, labels=True)
    fit, test = finetune.load_images(small, str(tmp_path / "images.npz"), None, labels=False)
    assert fit.pixels.shape == (8, 3, 24, 24)
    assert test.pixels.shape == (2, 3, 20, 16)
    np.savez(tmp_path / "few.npz", images=images[:2], labels=np.array([0, 1]))
    with pytest.raises(UserError, match="not 2 and 0; give more images, or TEST"):
        finetune.load_images(small, str(tmp_path / "few.npz"), None, labels=True)
