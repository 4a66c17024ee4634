# SPDX-License-Identifier: Apache-2.0
"""The commands of model_prep (formats.commands): each a function of the options.

The stages themselves are in `model_prep.stages`.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path

import torch

from nuq.formats.basis import SEEDED, calibration_text, chance_warning
from nuq.formats.build import is_current, sha256_file
from nuq.formats.errors import UserError, call
from nuq.formats.network import Network, load, save
from nuq.formats.options import Options
from nuq.formats.settings import read as read_settings
from nuq.model_prep.allocate import command as allocation
from nuq.model_prep.networks import get, registry
from nuq.model_prep.quantize.integers import check_graph
from nuq.model_prep.quantize.plan import AUTO, Plan, parse_bits, parse_qm
from nuq.model_prep.quantize.plan_file import KEYS, resolve
from nuq.model_prep.source import Recipe, Source, open_source
from nuq.model_prep.stages import (
    Quantization,
    Subject,
    build,
    choose_images,
    run_reference,
)
from nuq.model_prep.stages import accuracy as measured_accuracy

LOST_DB = 3  # less than the half of what a layer stores is signal: 0 dB is all zeros
NAMED = 4  # layers that a warning names
UNLABELLED = 16  # images that a network which does not answer by classes is measured on, or half


def _print_summary(network: Network, done: Quantization, folder: Path, tested: bool) -> None:
    """What was found, layer by layer, on stdout; `tested`: the accuracy of the test images, too."""
    print(f"{network.name}: weights {network.weights}, qm {network.qm}")
    print(f"input: {network.input.preprocessing.text}")
    print(calibration_text(network.calibration))
    wide = max(10, *(len(layer.name) for layer in network.layers))
    print(f"{'layer':<{wide}}{'scheme':>9}{'bits':>6}{'F':>5}{'acc':>5}{'shift':>7}{'SQNR dB':>9}")
    for layer in network.layers:
        chosen = layer.quantizer
        scheme, bits = (chosen.scheme, str(chosen.bits)) if chosen else ("raw", "-")
        shift = "-" if layer.requant_shift is None else str(layer.requant_shift)
        sqnr = "-" if layer.sqnr_db is None else f"{layer.sqnr_db:.1f}"
        print(
            f"{layer.name:<{wide}}{scheme:>9}{bits:>6}{layer.out_frac:>5}{layer.acc_bits:>5}"
            f"{shift:>7}{sqnr:>9}"
        )
    print(
        f"search images: {done.uniform_score:.2f} {done.unit} with {network.qm}-bit uniform "
        f"codes, {done.score:.2f} with these"
    )
    if done.goal:
        width = max(layer.bits for layer in done.plan.layers if layer.bits is not None)
        print(
            f"BITS=auto: the smallest width for all layers is {width} ({done.goal}); "
            f"{call('allocate')} finds one for each layer"
        )
    if lost := lost_layers(network):
        print(lost, file=sys.stderr)
    if tested and network.accuracy is not None:
        entry = network.accuracy
        print(
            f"accuracy on {entry['images']} test images: float {entry['float_top1']:.2f}%, "
            f"integer {entry['integer_top1']:.2f}%, agreement {entry['agreement']:.2f}%"
        )
        warn_of_chance(entry["float_top1"], entry["images"], network)
        if network.weights == "seeded":
            print(SEEDED)
    print(f"written: {folder}")


def lost_layers(network: Network) -> str:
    """A warning that names layers whose codes hold next to nothing of float's values, or ""."""
    found = [
        f"{layer.name} ({layer.sqnr_db:.1f} dB)"
        for layer in network.layers
        if layer.sqnr_db is not None and layer.sqnr_db < LOST_DB
    ]
    if not found:
        return ""
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return (
        f"WARNING: an SQNR below {LOST_DB:g} dB says that little of float's values is left: "
        f"{', '.join(found[:NAMED])}{more}; raise BITS, or set SCHEME=knq "
        "RULE=nearest or REFINE=all"
    )


def warn_of_chance(top1: float, images: int, network: Network, classes: int = 0) -> None:
    """A warning on stderr where the float network's top-1 (percent) is little above chance."""
    classes = classes or prod(network.layers[-1].out_shape)
    warning = chance_warning(top1, images, classes, network.input.preprocessing.text)
    if warning and network.weights != "seeded":
        print(warning, file=sys.stderr)


def opened(
    options: Options, change: Callable[[Source], Source] = lambda source: source
) -> tuple[Source, Plan]:
    """The network and the plan that the options ask for; UserError if they do not fit.

    `change` is applied to the network before it is planned.
    """
    settings = {key: getattr(options, key, None) for key in KEYS}
    settings["bits"] = options.bits and parse_bits(options.bits)
    settings["qm"] = options.qm and parse_qm(options.qm)
    fc = {"weight_scheme": options.fc_weight_scheme, "weight_bits": options.fc_weight_bits}
    by_kind = {"fc": {key: value for key, value in fc.items() if value is not None}}
    recipe = Recipe(options.mean, options.std, options.scale, options.resize, options.side)
    source = change(open_source(options.net, options.weights, recipe))
    check_graph(source.graph)
    plan = resolve(source.graph, settings, source.defaults, options.plan, by_kind, options.preset)
    return source, plan


def subject_of(
    options: Options, images: int, change: Callable[[Source], Source] = lambda source: source
) -> Subject:
    """What the options ask for, with so many test images; UserError if they do not fit.

    `change`: see `opened`.
    """
    torch.set_grad_enabled(False)
    source, plan = opened(options, change)
    divided = choose_images(source.spec, options.data, images)
    return Subject(source, plan, divided, source.load(divided.calibration.pixels))


def init(options: Options) -> None:
    """Write a settings file for NET, with what is found in it."""
    from nuq.model_prep import initial

    initial.write(options)


def quantize(options: Options) -> None:
    """Write OUT/quantized, or leave it where it is up to date."""
    make_folder(subject_of(options, options.test_images), options.folder / "quantized")


def make_folder(subject: Subject, folder: Path, tested: bool = True) -> None:
    """Write the folder of a quantized network, or leave it where it is up to date.

    `tested`: say the accuracy of its own few test images.
    """
    settings, manifest = subject.settings_sha256(), folder / "manifest.json"
    arrays = folder / "arrays.npz"
    stands = is_current(manifest, settings, [arrays, folder / "vectors.npz"])
    if stands and is_current(manifest, sha256_file(arrays)):
        print(f"up to date: {folder}")
        return
    network, done = build(subject, settings)
    vectors = run_reference(subject, network)
    measured = measured_accuracy(vectors, network, subject.images.test.labelled)
    network = replace(network, accuracy=measured)
    save(network, vectors, folder)
    _print_summary(network, done, folder, tested)


def _kept_images(options: Options) -> int:
    """Test images of the build, which an accuracy has others than, so that it stays as it is."""
    before = read_settings(options.folder)
    same = before.get("DATA") == options.data and before.get("NET") == options.net
    return replace(options, images=before.get("IMAGES") if same else None).test_images


def one_output(source: Source) -> None:
    """UserError where a network has several outputs, which a loss or a table of one cannot take."""
    heads = source.graph.heads
    if len(heads) > 1:
        raise UserError(
            f"NET must have one output for this command, not {len(heads)} ({', '.join(heads)})"
        )


def accuracy(options: Options) -> None:
    """Quantize where need be, then measure on all images of IMAGES."""
    from nuq.model_prep import accuracy as measuring

    other = measuring.read_outputs(options.against) if options.against else None
    subject = subject_of(options, options.test_images if options.csim else _kept_images(options))
    answers, number = subject.loaded.graph.classifies, options.images
    if not answers and other is not None:
        raise UserError(
            "AGAINST must go with a network that answers by classes, not with one of "
            f"{len(subject.spec.results)} output(s) and maps; leave it out"
        )
    if not answers and not options.csim:  # images need no labels, and are calibrated on but these
        number = number or max(1, min(UNLABELLED, len(subject.images.everything) // 2))
        images = choose_images(subject.spec, options.data, number)
        subject = replace(subject, images=images)
    folder = options.folder / "quantized"
    make_folder(subject, folder, tested=False)
    test = subject.images.held_out(options.test_images if options.csim else number, answers)
    network = load(folder)
    result, outputs = measuring.measure(subject, network, test)
    if network.classifies:
        classes = outputs.exact.shape[1]
        warn_of_chance(result["float_top1"], result["images"], network, classes)
    if other is not None and options.against is not None:
        result["against"] = measuring.against(outputs, other, options.against)
    if options.csim:
        result["csim"] = measuring.read_csim(options.folder, network, outputs)
    measuring.write(result, outputs, options.folder)


def allocate(options: Options) -> None:
    """Find a width per layer, write OUT/plan.toml."""
    if options.method != "pairs":
        options = replace(options, bits=options.bits or AUTO)
    allocation.allocate(subject_of(options, 1), options)


def train(options: Options) -> None:
    """Make a network's packaged weights again."""
    from nuq.model_prep.training import train as training

    name = get(options.net).name
    training.train(name, options.checkpoint, options.data, options.test, options.epochs)


def finetune(options: Options) -> None:
    """Write OUT/finetuned, a checkpoint and its plan."""
    from nuq.model_prep.training import finetune as tuning

    torch.set_grad_enabled(False)
    source, plan = opened(options)
    one_output(source)
    images = tuning.load_images(source.spec, options.data, options.test, labels=not options.distil)
    out = options.folder / "finetuned"
    tuning.show(tuning.finetune(source, plan, images, options, out), out)


def networks(_: Options) -> None:
    """One line per network."""
    for name, spec in registry().items():
        shape = "x".join(map(str, spec.in_shape))
        print(f"{name:<10} input {shape}, {spec.parameters:,} parameters")
