# SPDX-License-Identifier: Apache-2.0
"""`python -m model_prep quantize | accuracy | allocate | study | train | finetune | networks`.

Options become plain values and go to the stages.

The stages themselves are in `model_prep.stages`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from formats.errors import UserError
from model_prep import networks
from model_prep.allocate import command as allocation
from model_prep.quantize import manifest
from model_prep.quantize.integers import check_graph, network_input
from model_prep.quantize.kmeans import RULES
from model_prep.quantize.manifest import QuantizedNetwork
from model_prep.quantize.plan import AUTO, Plan, Settings, parse_bits, parse_qm, resolve
from model_prep.quantize.quantizers.base import HARDWARE, VARIANTS
from model_prep.quantize.quantizers.weights import WEIGHT_SCHEMES
from model_prep.quantize.refine import DISTIL_STEPS, TECHNIQUES
from model_prep.source import Recipe, Source, open_source
from model_prep.stages import (
    Formats,
    Images,
    accuracy,
    build,
    choose_images,
    is_current,
    run_reference,
    settings_sha256,
)
from model_prep.study import command as studying
from model_prep.study.context import Subject
from model_prep.weights import WeightsResult


def _print_summary(network: QuantizedNetwork, formats: Formats, folder: Path) -> None:
    """What was found, layer by layer, on stdout."""
    print(f"{network.name}: weights {network.weights}, qm {network.qm}")
    print(f"{'layer':<10}{'scheme':>9}{'bits':>6}{'F':>5}{'acc':>5}{'shift':>7}{'SQNR dB':>9}")
    for layer in network.layers:
        chosen = layer.quantizer
        scheme, bits = (chosen.scheme, str(chosen.bits)) if chosen else ("raw", "-")
        shift = "-" if layer.requant_shift is None else str(layer.requant_shift)
        sqnr = "-" if layer.sqnr_db is None else f"{layer.sqnr_db:.1f}"
        print(
            f"{layer.name:<10}{scheme:>9}{bits:>6}{layer.out_frac:>5}{layer.acc_bits:>5}"
            f"{shift:>7}{sqnr:>9}"
        )
    print(
        f"search images: {formats.uniform_score:.2f} {formats.unit} with {network.qm}-bit uniform "
        f"codes, {formats.score:.2f} with these"
    )
    if network.accuracy is not None:
        entry = network.accuracy
        print(
            f"accuracy on {entry['images']} test images: float {entry['float_top1']:.2f}%, "
            f"integer {entry['integer_top1']:.2f}%, agreement {entry['agreement']:.2f}%"
        )
        if network.weights == "seeded":
            print("the weights are seeded random numbers: these percentages mean nothing")
    print(f"written: {folder}")


@dataclass(frozen=True)
class Request:
    """A network with its plan, images and weights, from the options of a command line."""

    source: Source
    plan: Plan
    images: Images
    loaded: WeightsResult
    settings: str


def opened(args: argparse.Namespace) -> tuple[Source, Plan]:
    """The network and the plan that the options ask for; UserError if they do not fit."""
    settings = Settings(
        scheme=args.scheme, rule=args.rule, variant=args.variant, delta=args.delta,
        bits=None if args.bits is None else parse_bits(args.bits),
        qm=None if args.qm is None else parse_qm(args.qm),
        weight_scheme=args.weight_scheme, weight_bits=args.weight_bits, refine=args.refine,
        distil_steps=args.distil_steps,
    )  # fmt: skip
    classifier = {"weight_scheme": args.fc_weight_scheme, "weight_bits": args.fc_weight_bits}
    by_kind = {"fc": {key: value for key, value in classifier.items() if value is not None}}
    recipe = Recipe(args.mean, args.std, args.scale, args.resize)
    source = open_source(args.net, args.weights, recipe)
    check_graph(source.graph)
    path = Path(args.plan) if args.plan else None
    plan = resolve(source.graph, settings, source.defaults, path, by_kind)
    return source, plan


def request(args: argparse.Namespace) -> Request:
    """What the options of `quantize` and `accuracy` ask for; UserError if they do not fit."""
    source, plan = opened(args)
    images = choose_images(source.spec, args.data, args.images)
    loaded = source.load(images.calibration.pixels)
    settings_hash = settings_sha256(source.spec, plan, images, loaded)
    return Request(source, plan, images, loaded, settings_hash)


def quantize(args: argparse.Namespace) -> int:
    """The command `quantize`: write args.out/quantized, or leave it where it is up to date."""
    make_folder(request(args), Path(args.out) / "quantized")
    return 0


def make_folder(asked: Request, folder: Path) -> None:
    """Write the folder of a quantized network, or leave it where it is up to date."""
    if is_current(folder, asked.settings):
        print(f"up to date: {folder}")
        return
    spec, images = asked.source.spec, asked.images
    network, formats = build(spec, asked.loaded, asked.plan, images, asked.settings)
    vectors = run_reference(spec, asked.loaded.graph, network, images.test)
    measured = accuracy(vectors, network.layers[-1].name, images.test.labelled)
    network = replace(network, accuracy=measured)
    manifest.save(network, vectors, folder)
    _print_summary(network, formats, folder)


def measure(args: argparse.Namespace) -> int:
    """The command `accuracy`: quantize where need be, then measure on all images of --images."""
    from model_prep import accuracy as measuring

    wanted = args.images
    args.images = wanted if args.csim and wanted else 1
    asked = request(args)
    folder = Path(args.out) / "quantized"
    make_folder(asked, folder)
    test = measuring.held_out(asked.source.spec, args.data, asked.images, wanted)
    result = measuring.measure(
        asked.source, asked.loaded, manifest.load(folder), asked.images.calibration, test
    )
    if args.csim:
        result["csim"] = measuring.read_csim(Path(args.out), test.labels)
    measuring.write(result, Path(args.out))
    return 0


def allocate(args: argparse.Namespace) -> int:
    """The command `allocate`: find a width per layer, write args.out/plan.toml."""
    wanted, args.images = args.images, 1
    args.bits = AUTO if args.bits is None else args.bits
    asked = request(args)
    args.images = wanted
    images = asked.images.calibration
    labels = images.labelled and asked.loaded.origin != "seeded"
    source = network_input(asked.source.spec)
    allocation.allocate(
        asked.source.spec, asked.loaded.graph, source, asked.plan, images, labels, args
    )
    return 0


def study(args: argparse.Namespace) -> int:
    """The command `study`: the papers' tables on this network; args.out/study/report.html."""
    from model_prep import accuracy as measuring

    studying.chosen(args.sections)  # before images and weights are loaded
    wanted, args.images = args.images, 1
    asked = request(args)
    if asked.images.test.labelled and not asked.images.overlap:
        test = measuring.held_out(asked.source.spec, args.data, asked.images, wanted)
    else:
        args.images = wanted or max(1, asked.images.total // 2)
        asked = request(args)
        test = asked.images.test
    images, plan = asked.images, asked.plan
    if plan.qm == AUTO:
        raise UserError("QM must be a number for a study, not auto; leave it out for 12")
    labels = images.calibration.labelled and asked.loaded.origin != "seeded"
    subject = Subject(
        asked.source.spec, asked.loaded.graph, network_input(asked.source.spec),
        asked.source.defaults, asked.loaded.origin, images.calibration, test, labels,
        images.overlap,
    )  # fmt: skip
    tested = replace(images, test=test)
    settings = settings_sha256(asked.source.spec, plan, tested, asked.loaded)
    studying.run(subject, settings, plan.qm, args.delta, args)
    return 0


def train(args: argparse.Namespace) -> int:
    """The command `train`: make a network's packaged weights again."""
    from model_prep.training import train as training

    out = Path(args.out) if args.out else None
    training.train(networks.get(args.net).name, out, args.data, args.test, args.epochs)
    return 0


def finetune(args: argparse.Namespace) -> int:
    """The command `finetune`: write args.out/finetuned, a checkpoint and its plan."""
    from model_prep.training import finetune as tuning

    defaults = tuning.Options()
    options = tuning.Options(
        epochs=defaults.epochs if args.epochs is None else args.epochs,
        rate=defaults.rate if args.lr is None else args.lr,
        batch=defaults.batch if args.batch is None else args.batch,
        seed=defaults.seed if args.seed is None else args.seed, distill=args.distill,
    )  # fmt: skip
    source, plan = opened(args)
    images = tuning.load_images(source.spec, args.data, args.test, labels=not args.distill)
    out = Path(args.out) / "finetuned"
    tuning.show(tuning.finetune(source, plan, images, options, out), out)
    return 0


def list_networks(_: argparse.Namespace) -> int:
    """The command `networks`: one line per network."""
    for name, spec in networks.registry().items():
        shape = "x".join(map(str, spec.in_shape))
        print(f"{name:<10} input {shape}, {spec.parameters:,} parameters")
    return 0


def _add_source_options(run: argparse.ArgumentParser) -> None:
    """The options that name the network, its images and the folder to write in."""
    run.add_argument(
        "--net",
        required=True,
        help="network (see the command networks) or ONNX file",
    )
    run.add_argument(
        "--weights",
        metavar="FILE",
        help="checkpoint (.pth) or seeded; default: the published ones",
    )
    run.add_argument("--mean", metavar="A,B,C", help="ONNX: mean; default: torchvision's")
    run.add_argument("--std", metavar="A,B,C", help="ONNX: deviation")
    run.add_argument("--scale", type=float, metavar="X", help="ONNX: factor of a pixel before mean")
    run.add_argument("--resize", type=int, metavar="N", help="ONNX: shorter side before cropping")
    run.add_argument("--data", metavar="PATH", help="folder of images or .npz; default: samples")
    run.add_argument("--qm", help=f"width of a decoded activation or {AUTO}; default: 12")
    run.add_argument(
        "--delta", type=float, metavar="X",
        help="what a search may lose: points of top-1 with labels (default 1), else dB of output "
        "SQNR (default 30)",
    )  # fmt: skip
    run.add_argument("--out", required=True, metavar="DIR", help="folder to write in")


def add_options(run: argparse.ArgumentParser) -> None:
    """The options that say which network is quantized how."""
    _add_source_options(run)
    run.add_argument("--scheme", help=f"{', '.join(HARDWARE)}; default: the network's")
    run.add_argument("--bits", help=f"a width, a comma list (one per quantized layer) or {AUTO}")
    run.add_argument("--rule", help=f"of knq: {', '.join(RULES)}; default: nearest")
    run.add_argument("--variant", help=f"of enq: {', '.join(VARIANTS)}; default: floor")
    for kind, text in (("", "weights"), ("fc-", "weights of fully connected layers")):
        run.add_argument(
            f"--{kind}weight-scheme", help=f"{text}: {', '.join(WEIGHT_SCHEMES)}; default: uniform"
        )
        run.add_argument(
            f"--{kind}weight-bits", type=int, metavar="N",
            help=f"width of stored {text}; default: 14, or 8 where there is a codebook",
        )  # fmt: skip
    run.add_argument("--plan", metavar="FILE", help="plan.toml: choices per kind and layer")
    run.add_argument(
        "--refine",
        help=f"label-free improvement: all, none or of {', '.join(TECHNIQUES)}; default: none",
    )
    run.add_argument(
        "--distil-steps", type=int, metavar="N", help=f"of distil; default: {DISTIL_STEPS}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m model_prep", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser(
        "quantize", help="write DIR/quantized, the input of the code generator"
    )
    add_options(run)
    run.add_argument("--images", type=int, default=1, metavar="N", help="test images; default: 1")
    run.set_defaults(command=quantize)
    score = commands.add_parser(
        "accuracy", help="quantize, then measure float and integer accuracy; DIR/accuracy.json"
    )
    add_options(score)
    score.add_argument(
        "--images", type=int, metavar="N", help="test images; default: all but the calibration's"
    )
    score.add_argument("--csim", action="store_true", help="also of the last C-simulation in DIR")
    score.set_defaults(command=measure)
    widths = commands.add_parser(
        "allocate", help="find a width per layer; DIR/plan.toml and DIR/allocation.json"
    )
    add_options(widths)
    allocation.add_options(widths)
    widths.set_defaults(command=allocate)
    papers = commands.add_parser(
        "study", help="the papers' tables and figures on this network; DIR/study/report.html"
    )
    _add_source_options(papers)
    studying.add_options(papers)
    unset = ("scheme", "bits", "rule", "variant", "plan", "refine", "distil_steps",
             "weight_scheme", "weight_bits", "fc_weight_scheme", "fc_weight_bits")  # fmt: skip
    papers.set_defaults(command=study, **dict.fromkeys(unset))
    again = commands.add_parser("train", help="make the packaged weights of a network again")
    again.add_argument("--net", required=True)
    again.add_argument("--data", metavar="PATH", help="training images with labels")
    again.add_argument("--test", metavar="PATH", help="test images; default: a tenth of --data")
    again.add_argument("--epochs", type=int, metavar="N", help="default: the recipe's")
    again.add_argument("--out", metavar="FILE", help="default: the packaged checkpoint")
    again.set_defaults(command=train)
    tune = commands.add_parser(
        "finetune", help="train the quantized network; DIR/finetuned with checkpoint and plan"
    )
    add_options(tune)
    tune.add_argument("--test", metavar="PATH", help="test images; default: a fifth of --data")
    tune.add_argument("--epochs", type=int, metavar="N", help="default: 3")
    tune.add_argument("--lr", type=float, metavar="X", help="learning rate; default: 0.001")
    tune.add_argument("--batch", type=int, metavar="N", help="images a step; default: 128")
    tune.add_argument("--seed", type=int, metavar="N", help="default: 1")
    tune.add_argument("--distill", action="store_true", help="from the float network, no labels")
    tune.set_defaults(command=finetune)
    commands.add_parser("networks", help="list the networks").set_defaults(command=list_networks)
    return parser


def main(argv: list[str]) -> int:
    """Run one command; returns its exit status."""
    args = _parser().parse_args(argv)
    torch.set_grad_enabled(False)
    status: int = args.command(args)
    return status
