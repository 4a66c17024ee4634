# SPDX-License-Identifier: Apache-2.0
"""Engine: what is synthesized, for every network that fits its widths and depths.

A design of a network alone has an engine made for it. A network can be planned for an engine that
exists, too; `lacks` then says what is missing.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from nuq.codegen.design.resources import Resources, estimate, memories
from nuq.codegen.design.sizes import Memory, Sizes
from nuq.formats.errors import UserError, call, existing
from nuq.formats.hardware import Part
from nuq.formats.schema import parse, to_json

ENGINE = "engine.json"  # beside the C++
# Sizes of which an engine must have as much as a network needs, in the words of a refusal.
CAPACITIES = {
    "batch": "images a call",
    "weight_bits": "bits of a weight",
    "value_bits": "bits of a decoded activation",
    "tree_bits": "bits of a sum of products",
    "acc_bits": "bits of an accumulator",
    "wide_bits": "bits of what is requantized",
    "quant_bits": "bits of a requantized value",
    "code_bits": "bits of a code",
    "weight_rows": "rows of the weight buffer",
    "tap_rows": "rows of the tap table",
    "line_blocks": "entries of the line buffer",
    "line_high_blocks": "entries of the line buffer for wide codes",
    "pad_entries": "entries of padding",
    "psum_groups": "groups of partial sums",
    "knq_levels": "levels of KNQ",
    "table_entries": "entries of a weight codebook",
    "pool_rows": "rows of a max pool",
    "pool_width": "columns of a pooled map",
    "pack_width": "columns of an output",
    "map_height": "rows of a map",
    "map_width": "columns of a map",
    "kernel": "rows or columns of a dilated kernel",
    "stride": "pixels of a stride",
    "pass_blocks": "input blocks of a pass",
    "planes": "output planes of a group",
    "channels": "channels",
    "passes": "passes of a layer",
    "row_bytes": "bytes of an output row at all of its places",
    "lrn_reach": "neighbours of a normalisation",
}
UNITS = {
    "enq_bits": "ENQ",
    "operations": "layers without weights",
    "lrn": "normalisations",
    "averages": "average pools",
    "products": "products of maps",
    "scales": "weights scaled by channel",
    "quant_signed": "signed activations",
}
WIDTH_SETS = {"in_widths": "codes", "out_widths": "stored codes", "weight_widths": "stored weights"}


@dataclass(frozen=True)
class Engine:
    """An engine on a part."""

    part: Part
    sizes: Sizes

    @cached_property
    def memories(self) -> tuple[Memory, ...]:
        """On-chip memories."""
        return tuple(memories(self.sizes, self.part))

    @cached_property
    def resources(self) -> Resources:
        """Estimated use of the part."""
        return estimate(self.sizes, self.part)

    def lacks(self, needed: Sizes) -> list[str]:
        """What a network of these sizes needs and the engine has not; empty where it fits."""
        return [*self._missing_units(needed), *self._missing_widths(needed), *self._short(needed)]

    def _missing_units(self, needed: Sizes) -> Iterator[str]:
        for name, text in UNITS.items():
            if getattr(needed, name) and not getattr(self.sizes, name):
                yield f"{text} (it has none)"

    def _missing_widths(self, needed: Sizes) -> Iterator[str]:
        has_output = needed.out_widths != (1,) or 1 in needed.in_widths
        for name, text in WIDTH_SETS.items():
            have = getattr(self.sizes, name)
            missing = sorted(set(getattr(needed, name)) - set(have))
            if missing and (has_output or name != "out_widths"):
                numbers = ", ".join(map(str, missing))
                yield f"{text} of {numbers} bits (it has {', '.join(map(str, have))})"

    def _short(self, needed: Sizes) -> Iterator[str]:
        # a sign costs a bit where only the engine has it
        sign = int(self.sizes.quant_signed and not needed.quant_signed)
        needed = replace(needed, quant_bits=needed.quant_bits + sign)
        for name, text in CAPACITIES.items():
            want, have = getattr(needed, name), getattr(self.sizes, name)
            if want > have:
                yield f"{want} {text} (it has {have})"

    @property
    def text(self) -> str:
        """engine.json."""
        return json.dumps(to_json(self), indent=1) + "\n"


def read_engine(build: Path) -> Engine:
    """The engine whose C++ is in build/NET/hls; UserError where there is none."""
    path = existing(
        build / "hls" / ENGINE, f"run {call('engine')} or {call('codegen')} there first"
    )
    try:
        engine: Engine = parse(Engine, path.read_bytes())
    except ValueError as error:
        raise UserError(
            f"{path} must have this program's fields ({error}); generate it again"
        ) from None
    return engine
