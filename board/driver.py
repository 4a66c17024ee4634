# SPDX-License-Identifier: Apache-2.0
"""The driver: pixels in, outputs out, on a PYNQ board or on the emulated one.

    with Accelerator("digits") as board:
        for image, best in zip(images, board.classify(images, 5)):
            print(best)
        board.load("cifar10")  # another network for the engine that is loaded

Uses only what pynq 3.0.1, 3.1 and 4 have in common: Overlay, register_map, mmio, allocate, and
PynqBuffer's device_address, flush, invalidate, freebuffer.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pynq

from nuq.board.bundle import (
    BITSTREAM,
    HANDOFF,
    IMAGES,
    PARAMETERS,
    PROGRAM,
    TABLES,
    check_files,
    golden_outputs,
    read_arrays,
    read_manifest,
)
from nuq.board.errors import (
    AcceleratorTimeoutError,
    BundleError,
    DesignError,
    SelfTestError,
    StaleDataError,
)
from nuq.board.memory import UNWRITTEN, Buffers
from nuq.board.registers import Registers
from nuq.formats.design import Design, Layer, read_design
from nuq.formats.errors import UserError, call
from nuq.formats.images import best_classes, look_up
from nuq.formats.packing import pack_maps, unpack_maps, unpack_raw
from nuq.formats.program import read_program

log = logging.getLogger(__name__)

DEFAULT_BATCH = 16
MIN_TIMEOUT_S = 10.0
TIMEOUT_FACTOR = 200  # of the predicted time; a C-simulation is slower than the hardware
ID_TIMEOUT_S = 2.0
NO_LAYER = -3  # as `last`: less than any `first`


Outputs = Any  # an array, or of a network with several outputs a dict of them by name


def single(found: dict[str, np.ndarray]) -> Outputs:
    """The one output of a network, or all by name."""
    return next(iter(found.values())) if len(found) == 1 else found


def differing(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> np.ndarray:
    """Numbers of the images, int [M], whose outputs, [N, ...] by name, are not those wanted.

    >>> differing({"a": np.array([[1, 2], [3, 4]])}, {"a": np.array([[1, 2], [3, 5]])}).tolist()
    [1]
    """
    wrong = [(found[name] != one).reshape(len(one), -1).any(axis=1) for name, one in wanted.items()]
    return np.flatnonzero(np.any(wrong, axis=0))


@dataclass(frozen=True)
class Call:
    """One start of the accelerator."""

    first: int  # layers that it ran
    last: int
    images: int
    seconds: float  # from start to done, by the processor's clock
    counters: dict[str, int]  # the engine's (docs/formats.md section 7)


def read_bundle(folder: Path, bitstream: bool) -> tuple[Path, dict[str, Any], Design]:
    """Folder, manifest and design of an unpacked bundle.

    Args:
        folder: of the bundle.
        bitstream: whether there must be one.

    Raises:
        BundleError: no bitstream, or a file has changed; DesignError: its parts are of different
        engines or networks.
    """
    manifest = read_manifest(folder)
    for name in (BITSTREAM, HANDOFF) if bitstream else ():
        if name not in manifest["files"]:
            raise BundleError(
                f"{folder / name} must be part of the bundle; this one was made without "
                f"synthesis: {call('bundle')} again after {call('bitstream')}, or use "
                f"{call('emulate')}"
            )
    check_files(folder, manifest)
    design, program = read_design(folder / PARAMETERS), read_program(folder / PARAMETERS)
    if design.engine_id != manifest["engine"]["id"]:
        raise DesignError(
            f"parameters must be of engine {manifest['engine']['id']} (manifest), not "
            f"{design.engine_id}; copy the bundle again"
        )
    found = [f"{program.header(name):08x}" for name in ("engine_id", "network_id")]
    if found != [design.engine_id, design.network_id]:
        raise DesignError(
            f"{PROGRAM} must be of engine {design.engine_id} and network {design.network_id}, not "
            f"{found[0]} and {found[1]}; copy the bundle again"
        )
    return folder, manifest, design


class Accelerator:
    """An engine on a board, and a network that it runs.

    Args:
        folder: the unpacked bundle.
        device: a pynq.Device; None for pynq's active one.
        batch: images whose feature maps are allocated at a time; fewer where memory is short.
        timeout_s: for one batch; None: 10 s, or 200 times the predicted time where that is more.
        self_test: run the bundle's test images before anything else.

    Raises:
        BundleError: a file has changed; DesignError: the bitstream is another engine's;
        MemoryShortageError; StaleDataError; SelfTestError; AcceleratorTimeoutError. Buffers are
        freed whatever happens.
    """

    def __init__(
        self,
        folder: str | Path = ".",
        device: Any = None,
        batch: int = DEFAULT_BATCH,
        timeout_s: float | None = None,
        self_test: bool = True,
    ) -> None:
        self._take(*read_bundle(Path(folder), bitstream=True))
        if not batch >= 1:
            raise UserError(f"batch must be 1 or more, not {batch}")
        self._wanted_batch, self._wanted_timeout_s, self._tested = batch, timeout_s, self_test
        self.calls: list[Call] = []
        self._open_overlay(device)
        self.emulated = bool(getattr(self.device, "emulated", False))
        self._check_id()
        self._load()

    def _take(self, folder: Path, manifest: dict[str, Any], design: Design) -> None:
        """Make a bundle the one that is run."""
        self.folder, self.manifest, self.design = folder, manifest, design
        self.tables = read_arrays(folder / TABLES)

    def _load(self) -> None:
        """Allocate memory for the network, fill it, and test."""
        self.buffers = Buffers(self.design, self.device, min(self._wanted_batch, self.design.batch))
        self.batch = self.buffers.batch
        predicted = self.design.predicted_seconds * self.batch * TIMEOUT_FACTOR
        wanted = self._wanted_timeout_s
        self.timeout_s = max(MIN_TIMEOUT_S, predicted) if wanted is None else wanted
        try:
            self.buffers.load_parameters(self.folder)
            if self._tested:
                self.self_test()
        except BaseException:
            self.close()
            raise

    def load(self, folder: str | Path) -> None:
        """Run another bundle's network on the engine that is loaded, with a batch as at opening.

        Args:
            folder: the unpacked bundle; it needs no bitstream.

        Raises:
            BundleError, DesignError: a file has changed, or the network is planned for another
            engine; the network that is loaded stays. What else opening raises leaves none.
        """
        found = read_bundle(Path(folder), bitstream=False)
        design = found[-1]
        if design.engine_id != self.design.engine_id:
            raise DesignError(
                f"{folder} must be planned for the engine that is loaded, {self.design.engine_id}, "
                f"not for {design.engine_id}; make the bundle with ENGINE= that engine's build"
            )
        self.close()
        self._take(*found)
        self._load()

    # Life

    def __enter__(self) -> "Accelerator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free all buffers; may be called twice."""
        self.buffers.close()

    # Opening

    def _open_overlay(self, device: Any) -> None:
        bitstream = str((self.folder / BITSTREAM).resolve())
        self.overlay = pynq.Overlay(bitstream, device=device)
        self.device = self.overlay.device
        names = [
            name
            for name, entry in self.overlay.ip_dict.items()
            if entry.get("type", "").split(":")[2:3] == ["accelerator"]
        ]
        if len(names) != 1:
            raise DesignError(
                f"{self.folder / HANDOFF} must have one IP of type accelerator, not {len(names)}; "
                "use the .hwh of this design's Vivado project"
            )
        # the IP may lie in a hierarchy of the block design
        ip: Any = reduce(getattr, names[0].split("/"), self.overlay)
        entry = self.overlay.ip_dict[names[0]]
        self.registers = Registers(ip, entry["registers"], self.design.weight_ports)
        log.info("loaded %s, IP %s", bitstream, names[0])

    def _check_id(self) -> None:
        """Run no layer at all: the design then only says who it is."""
        self._call(0, -1, 0, (0,) * len(self.registers.pointers), ID_TIMEOUT_S)
        identity = f"{self.registers.read('design_id'):08x}"
        if identity != self.design.engine_id:
            raise DesignError(
                f"the bitstream must be of engine {self.design.engine_id} "
                f"({self.design.network}), not {identity}; use the bitstream that was made with "
                "this bundle, or make the bundle again"
            )

    # Running

    def preprocess(self, images: np.ndarray) -> np.ndarray:
        """Packed input uint64 [N, words] of pixels uint8 [N, C, H, W]."""
        design = self.design
        if images.ndim != 4 or images.dtype != np.uint8 or images.shape[1:] != design.input_shape:
            raise UserError(
                f"images must be uint8 [N, {', '.join(map(str, design.input_shape))}], not "
                f"{images.dtype} {list(images.shape)}"
            )
        codes = look_up(self.tables["input/table"], images)
        return pack_maps(design.gather(codes), design.input_bits).view("<u8")

    def predict(self, images: np.ndarray, by_layer: bool = False) -> Outputs:
        """Logits of pixels.

        Args:
            images: uint8 [N, C, H, W], any N.
            by_layer: one start per layer instead of one for all: `calls` then has each layer.

        Returns:
            int64 [N, classes], the accumulators of the head, the layer that ends the network,
            times the scale of their weights; times `design.outputs[0].scale` they are the
            network's values. [N, C, H, W] where the head has a map. Of a network with several
            outputs such an array for each, by name.
        """
        return single(self.integers(images, by_layer))

    def outputs(self, images: np.ndarray) -> Outputs:
        """The network's own outputs [N, ...] of pixels: what the host makes of `predict`'s values.

        float64; int64 where the network ends in an argmax. Several by name, as of `predict`.
        """
        integers = self.integers(images)
        return single({one.name: one.finished(integers[one.name]) for one in self.design.outputs})

    def integers(self, images: np.ndarray, by_layer: bool = False) -> dict[str, np.ndarray]:
        """What `predict` gives, by name of the output also where there is one."""
        heads = self.design.heads
        words = self._run(images, heads, by_layer)
        raw = {
            head.name: unpack_raw(found, [head.out_shape])[0]
            for head, found in zip(heads, words, strict=True)
        }
        return self.design.by_output(raw)

    def activations(self, images: np.ndarray, layer: str) -> np.ndarray:
        """Stored codes uint16 [N, C, H, W] of a layer; a head has none, use predict."""
        chosen = self.design.layers[self.design.layer_index(layer)]
        if chosen in self.design.heads:
            raise UserError(f"layer must be no head, as {layer}; its output is predict's")
        (words,) = self._run(images, (chosen,), False)
        return unpack_maps(words.view(np.uint8), chosen.out_shape, chosen.bits)

    def classify(self, images: np.ndarray, k: int = 5) -> list[list[tuple[int, str, float]]]:
        """The k best classes of each image: (index, name, value), best first.

        The value is the head's, before a softmax or a sigmoid. UserError where the network has
        several heads or a map.
        """
        logits = self.answers(images)
        names, scale = self.design.classes, self.design.outputs[0].scale
        return [
            [(int(c), names[c] if c < len(names) else str(c), row[c] * scale) for c in order]
            for row, order in zip(logits, best_classes(logits, k), strict=True)
        ]

    def answers(self, images: np.ndarray) -> np.ndarray:
        """[N, classes], the largest the answer, of pixels; UserError as of `classify`."""
        if not self.design.classifies:
            names = ", ".join(output.name for output in self.design.outputs)
            raise UserError(
                f"{self.design.network} must answer by classes to be asked for them, not by "
                f"{names}; use predict or outputs"
            )
        return self.design.answers(next(iter(self.integers(images).values())))

    def self_test(self) -> None:
        """The bundle's test images against the logits of the integer reference.

        May be called at any time. Where logits differ, parameters are read back first, so that a
        changed memory is told from a wrong bitstream; buffers are freed.
        """
        golden = read_arrays(self.folder / IMAGES)
        count = min(self.batch, len(golden["images"]))
        wrong = differing(self.integers(golden["images"][:count]), golden_outputs(golden, count))
        if wrong.size:
            try:
                self.buffers.verify_parameters()
            finally:
                self.close()
            raise SelfTestError(
                f"test image {wrong[0]} must give the reference's logits, but gives others (as do "
                f"{wrong.size} of {count}); weights and input are in memory as they should be, so "
                "the bitstream computes something else: check timing, clock and its ID"
            )
        self.calls.clear()
        log.info("self-test: %d images bit-exact", count)

    def _run(self, images: np.ndarray, wanted: Sequence[Layer], by_layer: bool) -> list[np.ndarray]:
        """Run layers up to the last one wanted on any images; uint64 [N, words] of each."""
        if not self.buffers.open:
            raise UserError("the accelerator must be open, not closed; make a new one")
        self.calls.clear()
        out = [np.empty((len(images), one.out_words), dtype=np.uint64) for one in wanted]
        for start in range(0, max(1, len(images)), self.batch):
            words = self.preprocess(images[start : start + self.batch])
            if not len(words):
                break
            try:
                found = self._run_batch(words, wanted, by_layer)
            except BaseException:
                self.close()
                raise
            for whole, part in zip(out, found, strict=True):
                whole[start : start + len(words)] = part
        return out

    def _run_batch(
        self, words: np.ndarray, wanted: Sequence[Layer], by_layer: bool
    ) -> list[np.ndarray]:
        last = self.design.layers.index(wanted[-1])
        before = self.buffers.upload(words, wanted)
        kept_back = 1.0 if by_layer or last == 0 else 0.5
        try:
            self._run_layers(len(words), last, by_layer, self.timeout_s * kept_back)
        except AcceleratorTimeoutError as error:
            self.overlay.download()
            if error.layer is None:
                self._find_layer(words, last, error)
            raise
        if wanted[-1].on_chip:  # which then is all that is wanted
            return [self._read_chip(len(words), wanted[-1])]
        return self.buffers.download(before, wanted)

    def _read_chip(self, images: int, layer: Layer) -> np.ndarray:
        """The output of `layer`, [N, words], which the last call left on chip."""
        memory = "AB".index(layer.memory)
        words = self.design.chip_words[memory]
        with self.buffers.scratch(images * words) as buffer:
            addresses = (int(buffer.device_address),) * len(self.registers.pointers)
            self._call(-1 - memory, NO_LAYER, images * words, addresses, self.timeout_s)
            buffer.invalidate()
            copied = buffer.view(np.ndarray).reshape(images, words)
            found = copied[:, layer.out_address : layer.out_address + layer.out_words].copy()
        if (found == UNWRITTEN).all():
            raise StaleDataError(
                f"the output of layer {layer.name} must be copied from the chip, but memory holds "
                "what it held before; open the accelerator again"
            )
        return found

    def _find_layer(self, words: np.ndarray, last: int, error: AcceleratorTimeoutError) -> None:
        """Repeat a batch that hung layer by layer; always raises.

        Counters are written when a call ends, so a call of several layers does not say where it
        hangs. The half of the time-out that the first call left is for this.
        """
        self.buffers.upload(words, self.design.layers[last : last + 1])
        try:
            self._run_layers(len(words), last, True, self.timeout_s / 2)
        except AcceleratorTimeoutError as found:
            self.overlay.download()
            raise found from error
        raise AcceleratorTimeoutError(
            f"{error}; repeated layer by layer, every layer finished", error.registers, None
        ) from error

    def _run_layers(self, images: int, last: int, by_layer: bool, timeout_s: float) -> None:
        """Start the layers in as few calls as the weight buffers allow, or one by one.

        The time-out is for all calls together.
        """
        end = time.monotonic() + timeout_s
        maps, program = self.buffers.feature_map_address, self.buffers.program_address
        for segment, weights in self.buffers.segments():
            stop = min(segment.last, last)
            step = 1 if by_layer else max(1, stop - segment.first + 1)
            for first in range(segment.first, stop + 1, step):
                left = max(0.0, end - time.monotonic())
                self._call(first, first + step - 1, images, (*weights, program, maps, maps), left)

    def _call(
        self,
        first: int,
        last: int,
        images: int,
        addresses: tuple[int, ...],
        timeout_s: float,
    ) -> None:
        """Start the accelerator once and wait; AcceleratorTimeoutError where it does not end.

        Args:
            first, last: layers, or a memory on chip.
            images: of the batch, or words.
            addresses: a value for every pointer.
            timeout_s: seconds.
        """
        registers = self.registers
        for name, value in (
            *zip(registers.pointers, addresses, strict=True),
            ("first", first),
            ("last", last),
            ("images", images),
        ):
            registers.write(name, value)
        begin = time.perf_counter()
        registers.start()
        if not registers.wait(timeout_s):
            raise self._timeout(first, last, timeout_s)
        seconds = time.perf_counter() - begin
        if last >= first:
            self.calls.append(Call(first, last, images, seconds, registers.counters()))

    def _timeout(self, first: int, last: int, timeout_s: float) -> AcceleratorTimeoutError:
        state = self.registers.dump()
        names = [layer.name for layer in self.design.layers[first : last + 1]]
        text = ", ".join(f"{name}={value:#x}" for name, value in state.items())
        ends = names if len(names) < 2 else [names[0], names[-1]]
        what = "..".join(ends) or "a call without layers"
        return AcceleratorTimeoutError(
            f"the accelerator must finish {what} within {timeout_s:.3g} s, but did not ({text}); "
            "check clock, bitstream and memory addresses, then open the accelerator again",
            state,
            names[0] if len(names) == 1 else None,
        )
