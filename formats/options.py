# SPDX-License-Identifier: Apache-2.0
"""The one table of options: the fields of `Options` with type, default, help and range.

Parsing and refusals, `--help`, what the Makefile passes on, README's and docs/options.md's tables
come from it and from the list of commands (formats.commands).
"""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from nuq.formats.errors import UserError, meant
from nuq.formats.hardware import LIMIT

SCHEME_OPTIONS = "RULE VARIANT"  # that one scheme has, as it declares them itself
DIGITS_IMAGES = 360  # of the digits that are kept apart as test images


@dataclass(frozen=True)
class Option:
    """What the table says of an option beyond its name and type."""

    help: str
    unset: str = ""  # what happens where it has no value, for options whose default is None
    choices: tuple[str, ...] = ()  # the words that it may be; none: any
    interval: str = ""  # of a number, as "[1, 16]", "[1," for 1 or more, "(0, 1]" for above 0
    # whether results depend on a file that it may name: "file", or "folder" where it names nothing
    # else and may be a folder
    file: str = ""


def option(default: Any, help: str, unset: str = "", *, choices: str = "", interval: str = "",
           file: str = "") -> Any:  # fmt: skip
    """A field of `Options`; see `Option`. `choices` is a text of words."""
    entry = Option(help, unset, tuple(choices.split()), interval, file)
    return field(default=default, metadata={"option": entry})


@dataclass(frozen=True)
class Options:
    """What was asked for: every option with its value or default; NAME is the field in capitals."""

    # network and images
    net: str = option("alexnet", "alexnet, vgg16, digits, cifar10, or an ONNX file", file="file")
    config: Path | None = option(
        None, "settings file: options by name, as in a build's settings.toml", "none"
    )
    out: Path | None = option(None, "folder to write in", "build/NET")
    weights: str | None = option(
        None, "checkpoint with torchvision's tensor names, or seeded", "published, else seeded",
        file="file",
    )  # fmt: skip
    data: str | None = option(
        None, "images: a folder, flat or one a class, or .npz",
        "8 crops of two photographs; digits' own", file="folder",
    )  # fmt: skip
    images: int | None = option(
        None, "test images", "1, digits 360; accuracy and study all that calibration leaves; "
        "allocate 256, without labels 8", interval="[1,",
    )  # fmt: skip
    mean: str | None = option(
        None, "ONNX input (pixel * SCALE - MEAN) / STD: a number, or one a channel with commas",
        "torchvision's; beside STD or SCALE 0",
    )  # fmt: skip
    std: str | None = option(
        None, "ONNX: deviation, as MEAN", "torchvision's; beside MEAN or SCALE 1"
    )
    scale: float | None = option(
        None,
        "ONNX: factor of a pixel; 1 for MEAN and STD of pixels 0..255",
        "1/255",
        interval="(0,",
    )
    resize: int | None = option(
        None, "ONNX: shorter side of every picture before cropping",
        "8/7 of the input; pictures of its size as they are",
    )  # fmt: skip
    # quantization
    preset: str = option(
        "accurate", "choices that go together, where nothing else is said (docs/plan.md)",
        choices="accurate fast small paper",
    )  # fmt: skip
    scheme: str | None = option(
        None, "knq, enq, uniform, optimal, dynamic, linear, gaussian (docs/papers.md)",
        "the network's",
    )  # fmt: skip
    bits: str | None = option(
        None, "a width, a comma list (one a quantized layer) or auto", "the network's"
    )
    rule: str | None = option(None, "of knq: nearest, or floor (the paper's)", "nearest")
    variant: str | None = option(None, "of enq: round, mid, or floor (the paper's)", "round")
    qm: str | None = option(None, "width of a decoded activation, or auto", "12")
    delta: float | None = option(
        None, "what a search may lose: points of top-1 or agreement, nats, or dB of output SQNR",
        "1 point with labels, else 30 dB; METRIC=agreement 5 points, divergence 0.1",
    )  # fmt: skip
    weight_scheme: str | None = option(
        None, "stored weights: uniform, or kmeans (indices into a codebook)", "uniform"
    )
    weight_scale: str | None = option(
        None, "what has a step of its own for its weights: layer, or channel (of the output)",
        "layer",
    )  # fmt: skip
    weight_bits: int | None = option(
        None, "width of a stored weight or index", "14; 8 with a codebook"
    )
    fc_weight_scheme: str | None = option(
        None, "WEIGHT_SCHEME of fully connected layers", "WEIGHT_SCHEME"
    )
    fc_weight_bits: int | None = option(
        None, "WEIGHT_BITS of fully connected layers", "WEIGHT_BITS"
    )
    plan: Path | None = option(
        None, "plan.toml: choices a kind and a layer (docs/plan.md)", "no plan", file="folder"
    )
    refine: str | None = option(
        None, "label-free improvement: all, none or of equalise, sensitivity, distil, with commas",
        "none",
    )  # fmt: skip
    distil_steps: int | None = option(None, "steps of REFINE's distil", "60")
    seed: int | None = option(
        None, "of what is drawn: classes of sensitivity, crops, order of images", "1",
        interval="[0, 65535]",
    )  # fmt: skip
    # widths per layer
    method: str = option(
        "search", "how widths are found; pairs: which layers multiply two in a DSP block",
        choices="search budget quenn sqnr loss pairs",
    )  # fmt: skip
    nb: int | None = option(None, "budget: bits of one image's activations", "the whole front")
    average: tuple[float, ...] = option(
        (3.0, 4.0, 5.0, 6.0), "loss: stored bits an activation, a plan for each", interval="(0,"
    )
    schemes: tuple[str, ...] = option(
        ("knq", "enq", "uniform"), "to compare, with commas", choices="knq enq uniform"
    )
    points: int = option(12, "budget: designs of the front", interval="[2,")
    metric: str | None = option(
        None, "what a width is judged by", "accuracy with labels, else sqnr",
        choices="accuracy agreement divergence sqnr",
    )  # fmt: skip
    order: str = option("size", "search: which layers come first", choices="size backward forward")
    exhaustive: bool = option(False, "search: all products of widths")
    cache_gb: float | None = option(
        None, "activations to keep, GB", "a quarter of free memory", interval="[0,"
    )
    compare_cache: bool = option(False, "search again without that cache and compare")
    scheduler: str | None = option(None, "a Dask cluster, tcp://HOST:PORT", "this machine")
    target_db: float | None = option(
        None, "sqnr: of all activations together, dB", "what 5 bits everywhere have",
        interval="(0,",
    )  # fmt: skip
    weights_db: float | None = option(
        None, "sqnr: of all weights together, whose widths it then chooses, dB", "given widths",
        interval="(0,",
    )  # fmt: skip
    rho: str | None = option(
        None, "sqnr: what a bit costs", "activations", choices="parameters activations macs"
    )
    kappa: float | None = option(None, "sqnr: dB a bit", "measured", interval="(0,")
    # study
    sections: tuple[str, ...] = option((), "some of its sections, with commas", "all")
    quick: bool = option(False, "fewer points, for a first look")
    head: str | None = option(
        None, "labelled images (as DATA) on which a linear layer is trained to read the network's "
        "features", "the network's own output", file="folder",
    )  # fmt: skip
    side: int | None = option(
        None, "of the images, for an ONNX file of convolutions alone", "the file's", interval="[1,"
    )
    # training
    test: str | None = option(None, "images to test on", "part of DATA")
    epochs: int | None = option(
        None, "passes over DATA", "the recipe's; finetune 3", interval="[1,"
    )
    checkpoint: Path | None = option(None, "file for the weights", "the packaged one")
    lr: float = option(1e-3, "learning rate", interval="(0, 1)")
    minibatch: int = option(128, "images a step", interval="[1, 4096]")
    distil: bool = option(False, "learn from the float network instead of labels")
    # hardware
    part: str = option("xc7z020", "FPGA part, or a TOML file (docs/parts.md)", file="file")
    clock: float | None = option(None, "MHz", "the part's typical clock", interval="[1, 1000]")
    simd: int | None = option(None, "input channels a cycle, a multiple of 8", "what is fastest")
    pe: int | None = option(None, "output channels a cycle, a multiple of 8", "what is fastest")
    pixels: int | None = option(None, "pixels of a row a cycle, 1 to 8", "what is fastest")
    weight_ports: int | None = option(
        None, "memory ports for weights: 1, 2, 3, 4 or 6", "what is fastest"
    )
    stage: str = option(
        "auto", "compute stage: what is fastest, one product a multiplier, two (docs/faster.md)",
        choices="auto single pairs",
    )  # fmt: skip
    fm: str = option(
        "auto", "feature maps: on chip where they fit, all on chip or an error, in DRAM",
        choices="auto chip ddr",
    )  # fmt: skip
    engine: Path | None = option(
        None, "build folder of an engine that exists; NET is planned for it", "one made for NET",
        file="folder",
    )  # fmt: skip
    batch: int | None = option(
        None, "images that the hardware takes in a run", "1; alternatives 8", interval="[1,"
    )
    # exploration
    limit: float = option(LIMIT, "fraction of the part to use", interval="(0, 1]")
    # comparison
    a: Path | None = option(None, "build folder to compare with others", "none")
    b: tuple[Path, ...] = option((), "build folders, with commas", "none")
    # C-simulation
    csim: bool = option(False, "accuracy of the C-simulation, too, on the same images")
    against: Path | None = option(
        None, "OUT of another measurement on the same images, to compare with", "float only"
    )
    csim_types: str = option(
        "fast",
        "native integers, proved wide enough; ap_int; or native with a clock in every process",
        choices="fast exact timed",
    )
    first_layers: int = option(0, "run only so many layers; 0: all", interval="[0,")
    sanitize: bool = option(False, "with the address and undefined behaviour sanitizers")
    files: tuple[Path, ...] = option((), "sources to check, with commas", "the templates")
    # synthesis and board
    hls_steps: tuple[str, ...] = option(
        ("csim", "csynth", "export"), "what Vitis HLS does, with commas; cosim for small networks",
        choices="csim csynth cosim export",
    )  # fmt: skip
    board: str | None = option(None, "board, as pynq-z2 (docs/board.md)", "not checked")
    bitstream: Path | None = option(None, ".bit with its .hwh beside it", "the build's, if any")
    bundle: Path | None = option(None, "unpacked bundle: measure this board", "the emulated board")
    repeats: int = option(20, "timed runs", interval="[1,")
    clnq: tuple[int, ...] = option(
        (), "widths to compare with, one a convolution, with commas", "the paper's", interval="[1,"
    )
    measure_images: int | None = option(None, "at most so many images", "all", interval="[1,")
    verbose: bool = option(False, "say what the driver does")
    # conversion units
    sweep: str = option(
        "small", "points of the cost table; full takes hours", choices="small medium full"
    )
    simulators: tuple[str, ...] = option(
        ("cxxrtl", "cpp"), "what runs all inputs, with commas", choices="cxxrtl icarus cpp"
    )
    lanes: int = option(1, "values a rendered unit converts at once", interval="[1, 1024]")
    register: bool = option(False, "register the results (latency 1)")
    record: bool = option(False, "keep the sweep with the sources and fit the cost formula to it")

    @property
    def folder(self) -> Path:
        """Where everything is written: OUT, else build/NET."""
        return self.out or Path("build") / Path(self.net).stem

    @property
    def test_images(self) -> int:
        """How many images are quantized as tests: IMAGES, else all of digits' own or 1."""
        own = self.net == "digits" and self.data is None
        return self.images or (DIGITS_IMAGES if own else 1)


def table() -> dict[str, tuple[Any, Option, Any]]:
    """NAME to (type without None, Option, default), in the order of the fields."""
    hints = get_type_hints(Options)
    return {
        item.name.upper(): (_plain(hints[item.name]), item.metadata["option"], item.default)
        for item in fields(Options)
    }


def _plain(hint: Any) -> Any:
    """The type without None."""
    members = [member for member in get_args(hint) if member is not NoneType]
    return members[0] if NoneType in get_args(hint) else hint


def value(name: str, text: str) -> Any:
    """The value that `text` is for the option NAME; UserError where it is none.

    A list of choices has their order.

    >>> value("CLNQ", "5,4"), value("QUICK", "1"), value("HLS_STEPS", "export,csim")
    ((5, 4), True, ('csim', 'export'))
    """
    kind, entry, _ = table()[name]
    if get_args(kind):
        parts = [part.strip() for part in text.split(",")]
        items = tuple(_one(name, part, get_args(kind)[0], entry) for part in parts)
        return tuple(word for word in entry.choices if word in items) if entry.choices else items
    return _one(name, text, kind, entry)


def _one(name: str, text: str, kind: Any, entry: Option) -> Any:
    """One value of an option."""
    if kind is bool:
        if text not in ("0", "1"):
            raise UserError(f"{name} must be 1 or 0, not {text!r}")
        return text == "1"
    if entry.choices and text not in entry.choices:
        raise UserError(
            f"{name} must be one of {', '.join(entry.choices)}, not {text!r}"
            f"{meant(text, entry.choices)}"
        )
    if kind not in (int, float):
        return kind(text)
    try:
        number = _fraction(text) if kind is float else kind(text)
    except (ValueError, ZeroDivisionError):
        number = math.nan
    inside = all(ENDS[bracket][0](number, float(end)) for bracket, end in _ends(entry.interval))
    if not math.isfinite(number) or not inside:
        noun = "an integer" if kind is int else "a number"
        raise UserError(f"{name} must be {noun}{range_text(entry.interval)}, not {text!r}")
    return number


def _fraction(text: str) -> float:
    """A number, or one divided by another.

    >>> _fraction("1/4"), _fraction("0.5")
    (0.25, 0.5)
    """
    above, slash, below = text.partition("/")
    return float(above) / float(below) if slash else float(text)


# What an end of an interval asks of a number, and the words for it.
ENDS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "[": (operator.ge, " of {} or more"),
    "(": (operator.gt, " above {}"),
    "]": (operator.le, " and at most {}"),
    ")": (operator.lt, " and below {}"),
}


def _ends(interval: str) -> list[tuple[str, str]]:
    """The ends of an interval, bracket and number.

    >>> _ends("(0, 1]"), _ends("[1,")
    ([('(', '0'), (']', '1')], [('[', '1')])
    """
    low, _, high = interval.partition(",")
    ends = [(low[:1], low[1:]), (high[-1:], high[:-1].strip())]
    return [(bracket, number) for bracket, number in ends if bracket]


def range_text(interval: str) -> str:
    """An interval in words, to stand behind "an integer" or "a number".

    >>> range_text("[1,"), range_text("[1, 16]"), range_text("(0, 1)")
    (' of 1 or more', ' from 1 to 16', ' above 0 and below 1')
    """
    ends = _ends(interval)
    if [bracket for bracket, _ in ends] == ["[", "]"]:
        return f" from {ends[0][1]} to {ends[1][1]}"
    return "".join(ENDS[bracket][1].format(number) for bracket, number in ends)


def default_text(name: str) -> str:
    """What an option is where it is not set, as text.

    >>> default_text("NET"), default_text("IMAGES")[:10], default_text("HLS_STEPS")
    ('alexnet', '1, digits ', 'csim,csynth,export')
    """
    _, entry, default = table()[name]
    if isinstance(default, bool):
        return str(int(default))
    if isinstance(default, tuple):
        return (
            ",".join(f"{item:g}" if isinstance(item, float) else item for item in default)
            or entry.unset
        )
    return entry.unset if default is None else f"{default}"
