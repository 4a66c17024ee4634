# SPDX-License-Identifier: Apache-2.0
"""report.json as classes: what each field is, who reads it, and its schema.

MAC, activations and packed bytes are of one image; bytes moved, cycles and counts of all images.
`python -m nuq.codegen.emit.report_model` prints the JSON schema.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nuq.formats.errors import UserError, call, existing

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Shape = tuple[Count, Count, Count]
Name = Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")]
Scheme = Literal["knq", "enq", "uniform", "raw"]


class Model(BaseModel):
    """A JSON object without other fields than these, made from any object with such attributes."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)


class Engine(Model):
    """The array, and images of one call."""

    simd: Positive
    pe: Positive
    pixels: Positive
    weight_bits: Count
    weight_ports: Positive
    batch: Positive


class Preprocessing(Model):
    """From an image file to the network's input, see docs/formats.md 1.1."""

    resize: Positive | None
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixel_max: Positive
    resize_all: bool = Field(default=False, exclude_if=lambda asked: not asked)


class Weights(Model):
    """How a layer's weights are stored: their width, entries of the codebook (0 without one).

    `scaled`: whether each output channel has a step of its own.
    """

    bits: Positive
    table_entries: Count
    scaled: bool


class Places(Model):
    """Where feature maps are: "ddr", on-chip memory "A" or "B", or "ddr, copy in A"."""

    inputs: list[str]
    output: Literal["ddr", "A", "B"]


class Counts(Model):
    """Iterations of the engine's stages."""

    load: Count
    read: Count
    unpack: Count
    compute: Count
    finish: Count
    pool: Count
    pack: Count
    write: Count


class Codes(Model):
    """The codes of a layer in the order of their values, `together` neighbours as one.

    With an activation in the codebook they are in the order of the numbers in front of it.
    """

    values: list[float]  # that is computed with
    thresholds: list[float | None]  # the least number that becomes the code; None: none does
    behind: bool  # whether thresholds are in front of an activation, values behind it
    counts: list[Count]  # on all images
    together: Positive


class Layer(Model):
    """One layer; the bytes are those that cross the memory ports."""

    name: Name
    kind: Name  # of formats.rules.KINDS
    conv_shape: Shape
    out_shape: Shape
    macs: Count
    activations: Count
    bits: Annotated[int, Field(ge=1, le=64)]
    scheme: Scheme
    weights: Weights | None
    sqnr_db: float | None
    nb_bits: Count | None
    packed_bytes: Count
    memory: Places
    chunks: Positive
    bytes_read: Count
    bytes_written: Count
    bytes_weights: Count
    cycles: Count
    seconds: float
    dram_bound: bool  # whether the bytes moved take longer than the cycles
    utilisation: Share
    counts: Counts
    codes: Codes | None  # None for the last layer, which is not quantized


class Footprint(Model):
    """Activation memory by the papers' count."""

    activations: Count
    nb_bits: Count
    half_precision_bits: Count
    ratio: float


class Traffic(Model):
    """Bytes of feature maps between DRAM and chip, for all images: input, result, the rest."""

    input_bytes: Count
    output_bytes: Count
    other_bytes: Count


class Memory(Footprint):
    """The stored activations and everything else that takes memory."""

    packed_bytes: Count
    peak_live_bytes: Count
    peak_live_bytes_without_input: Count
    arena_bytes: Count
    chip_bytes: Count
    ddr: Traffic
    program_bytes: Count
    weight_bytes: Count
    weight_section_bytes: Count
    conv_before_pool: Footprint


class Performance(Model):
    """Time by the cycle model and 75% of the DRAM's peak; efficiency: share of ideal cycles."""

    clock_mhz: float
    dram_gbs: float
    cycles: Count
    efficiency: Share
    seconds: float
    images_per_second: float


class Blocks(Model):
    """Blocks of a part."""

    dsp: Count
    bram36: Count
    lut: Count
    ff: Count
    uram: Count


class OnChip(Model):
    """One of the engine's memories."""

    name: str
    banks: Count
    depth: Count
    width: Count
    bram36: float
    uram: Count


class Resources(Model):
    """What the engine is estimated to take, and what the part has."""

    estimate: Blocks
    available: Blocks
    memories: list[OnChip]


class SimulatedLayer(Counts):
    """What the test bench counted and compared."""

    name: str
    codes: Count
    mismatches: Count
    seconds: float
    bytes_read: Count
    bytes_written: Count
    bytes_weights: Count
    cycles: Count


class Agreement(Model):
    """Images whose logits equal the reference's; top-1 of the labelled ones in percent."""

    images: Count
    same_logits: Count
    float_top1: float | None
    integer_top1: float | None
    csim_top1: float | None


class Csim(Model):
    """The last C-simulation: csim.json of the test bench, and the comparison of logits."""

    types: Literal["fast", "exact", "timed"]
    images: Positive
    seconds: float
    macs: Count
    mmacs_per_s: float
    mismatches: Count
    layers: list[SimulatedLayer]
    accuracy: Agreement | None = None


class HlsResources(Model):
    """Blocks as Vitis HLS counts them; None where a report does not say."""

    dsp: float | None
    bram18: float | None
    uram: float | None
    lut: float | None
    ff: float | None


class HlsModule(Model):
    """One function of the design."""

    name: str | None
    latency_min: float | None
    latency_max: float | None
    resources: HlsResources


class HlsLoop(Model):
    """One loop: cycles between iterations (None where it is not pipelined) and of one iteration."""

    name: str
    module: str
    ii: float | None
    depth: float | None


class Hls(Model):
    """csynth.xml: periods in ns, bounds of latency and the longest interval of calls in cycles."""

    version: str | None
    part: str | None
    target_ns: float | None
    uncertainty_ns: float | None
    estimated_ns: float | None
    latency_min: float | None
    latency_max: float | None
    interval_max: float | None = None
    resources: HlsResources
    modules: list[HlsModule]
    loops: list[HlsLoop]


class Cosim(Model):
    """The Verilog row of a co-simulation: status ("Pass", ...), cycles of a call."""

    status: str
    latency_min: float | None
    latency_average: float | None
    latency_max: float | None


class Placed(Model):
    """Blocks as Vivado counts them after placement."""

    dsp: float | None
    bram36: float | None
    uram: float | None
    lut: float | None
    ff: float | None


class Slack(Model):
    """Worst slacks in ns."""

    setup: float
    hold: float


class Vivado(Model):
    """The placed and routed system."""

    resources: Placed
    slack_ns: Slack
    clock_mhz: float | None


class Quantity(Model):
    """One row of the comparison; None where a tool does not say."""

    quantity: str
    model: float
    hls: float | None
    vivado: float | None


class Vendor(Model):
    """What the tools' reports say, and the model beside them (docs/hls.md)."""

    hls: Hls | None
    cosim: Cosim | None
    vivado: Vivado | None
    comparison: list[Quantity]


class Report(Model):
    """report.json; csim and vendor are null before those have run."""

    generator: str
    settings_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    arrays_sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]  # of quantized/
    network: Name
    weights: Literal["published", "file", "seeded", "trained"]
    engine_id: Annotated[str, Field(pattern="^[0-9a-f]{8}$")]
    network_id: Annotated[str, Field(pattern="^[0-9a-f]{8}$")]
    preprocessing: Preprocessing
    calibration: dict[str, Any]  # of the manifest: what the tables were measured on
    part: str
    scheme: Scheme | Literal["mixed"]
    images: Positive
    engine: Engine
    layers: list[Layer]
    memory: Memory
    performance: Performance
    resources: Resources
    accuracy: dict[str, Any] | None
    csim: Csim | None = None
    vendor: Vendor | None = None


def read_report(build: Path) -> Report:
    """report.json of a build folder; UserError where there is none, or names what is wrong."""
    path = existing(build / "report.json", f"run {call('codegen')} first")
    try:
        return Report.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        rule = "be JSON" if first["type"] == "json_invalid" else "follow its schema"
        where = "/".join(map(str, first["loc"])) or "top level"
        raise UserError(f"{path} must {rule}: {where}: {first['msg']}; generate again") from None


if __name__ == "__main__":
    print(json.dumps(Report.model_json_schema(), indent=1))
