# SPDX-License-Identifier: Apache-2.0
"""Builds: seven engines, each compiled once, for any network within its limits.

Also the seeded bugs ("mutations") that a copy of its sources can be given.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nuq.codegen.design.array import Array
from nuq.codegen.design.engine import Engine
from nuq.codegen.design.search import pair_fields
from nuq.codegen.design.sizes import Sizes
from nuq.codegen.emit import csim
from nuq.codegen.emit.render import TEMPLATES, render_engine
from nuq.formats.build import compile_cpp, write_atomic
from nuq.formats.hardware import find_part

SOURCE = Path(__file__).with_name("engine.cpp")
PART = "XC7Z045"


@dataclass(frozen=True)
class Build:
    """One engine."""

    name: str
    simd: int
    pe: int
    weight_bits: int
    qk_units: int
    types: str = "fast"
    weight_rows: int = 256  # this and the next two: buffer depths; small ones force chunks
    line_blocks: int = 4096
    psum_groups: int = 4096
    images: int = 4  # the largest batch
    knq_levels: int = 256
    chip_words: int = 1 << 14
    weight_ports: int = 1
    pixels: int = 1
    low_bits: int = 4
    pair_bits: int = 0  # of weights that share a multiplier
    kernel_rows: int = 0  # of depthwise layers whose lanes are channels

    @property
    def engine(self) -> Engine:
        """The engine: generous limits for small networks."""
        part = find_part(PART)
        array = Array(
            self.simd, self.pe, self.pixels, self.weight_ports, self.qk_units,
            kernel_rows=self.kernel_rows, **pair_fields(part, self.pair_bits),
        )  # fmt: skip
        every = tuple(range(1, 17))
        sizes = Sizes(
            array=array, batch=self.images, weight_rows=self.weight_rows,
            tap_rows=1 << 14, weight_bits=self.weight_bits,
            value_bits=17, tree_bits=48, acc_bits=53, quant_bits=18,
            code_bits=16, gear_bits=128, line_blocks=self.line_blocks,
            line_low_bits=self.low_bits, line_high_blocks=self.line_blocks,
            psum_groups=self.psum_groups, knq_levels=self.knq_levels, pool_rows=8, pool_width=64,
            pack_width=64, quant_signed=True, enq_bits=16, decoders=2, wide_bits=64,
            operations=True, lrn=self.pe >= 24, lrn_reach=8, averages=True, products=True,
            scales=True, map_height=64, map_width=64, kernel=64, stride=8,
            pad_entries=self.line_blocks, pass_blocks=128, planes=64, channels=1024,
            passes=1 << 12, in_widths=every, out_widths=every, weight_widths=every,
            table_entries=256, plain_weights=True, row_bytes=1 << 14,
            chip_words=(self.chip_words * self.images, (self.chip_words + 1) * self.images),
        )  # fmt: skip
        return Engine(part, sizes)

    @property
    def files(self) -> tuple[str, dict[str, str]]:
        """The engine's ID, and its C++ by name."""
        return _render(self)


@cache
def _render(build: Build) -> tuple[str, dict[str, str]]:
    return render_engine(build.engine)


BUILDS = (
    Build("small", 8, 24, 14, 6, kernel_rows=3),
    Build("wide", 16, 32, 8, 32, weight_rows=36, line_blocks=320, pixels=2, weight_ports=4,
          kernel_rows=5),
    Build("narrow", 8, 8, 16, 1, weight_rows=64, line_blocks=512, pixels=3),
    Build("exact", 24, 40, 5, 8, types="exact", weight_rows=49, line_blocks=768, weight_ports=3),
    Build("flat", 40, 16, 14, 4, weight_rows=40, line_blocks=1024, pixels=4),
    Build("pairs", 16, 32, 14, 8, types="exact", weight_rows=100, line_blocks=900, pair_bits=8),
    Build("narrow_pairs", 8, 48, 16, 4, weight_rows=64, pixels=2, weight_ports=2, pair_bits=6,
          kernel_rows=2),
)  # fmt: skip


@dataclass(frozen=True)
class Mutation:
    """One seeded bug: `old` in `file` becomes `new`; found on networks that build `build` runs."""

    name: str
    file: str
    old: str
    new: str
    build: str = "small"


# A PYNQ-Z2's DRAM at 100 MHz, and an adapter that makes short bursts wait.
TIMING = ("-DDRAM_WORDS_PER_CYCLE=1.97", "-DADAPTER_WORDS=64")

MUTATIONS = {
    item.name: item
    for item in (
        Mutation("wrong_pad", "planners.hpp", "y = -w.pad_top;", "y = 0;"),
        Mutation("pad_swapped", "compute.hpp", "corner.x = -w.pad_left;",
                 "corner.x = row.y;"),
        Mutation("padding_is_code_0", "compute.hpp",
                 "= inside ? decoded[s] : typename C::value_t(0);",
                 "= decoded[s];\nif (!inside) {\n"
                 "const typename C::code_t none[BLOCK_CODES] = {0};\n"
                 "typename C::value_t zero[BLOCK_CODES];\ndecoder(none, zero);\n"
                 "value[q][g * BLOCK_CODES + s] = zero[s];\n}"),
        Mutation("dilation_lost", "planners.hpp", "dy += w.dilation_h;", "dy += 1;"),
        Mutation("ring_wrap", "compute.hpp", "ahead >= w.ring_entries ?",
                 "ahead > w.ring_entries ?"),
        Mutation("chunk_restarts", "mac_array.hpp",
                 "first_chunk ? bias.start[p] : before.sum[q * C::PE + p]", "bias.start[p]",
                 "wide"),
        Mutation("pool_off_by_one", "pooling.hpp", "column < w.conv_width;",
                 "column < w.conv_width - 1;"),
        Mutation("pool_row_late", "pooling.hpp", "= w.pool_h - w.pad_top;",
                 "= w.pool_h - 1 - w.pad_top;"),
        Mutation("no_saturation", "conversion_units.hpp",
                 "min_of<int>((int(value) + half) >> shift, largest)",
                 "(int(value) + half) >> shift"),
        Mutation("no_upper_clamp", "requantize.hpp", "if (y > wide_t(y_max)) y = wide_t(y_max);",
                 ""),
        Mutation("no_rounding", "requantize.hpp", "(y + (wide_t(1) << (shift - 1))) >> shift",
                 "y >> shift"),
        Mutation("no_sign", "conversion_units.hpp", "(int(code[s]) ^ sign_) - sign_",
                 "int(code[s])"),
        Mutation("wrong_align", "compute.hpp", "w.align[at_taps.second]", "w.align[0]"),
        Mutation("average_counts_pad", "normalize.hpp", "min_of(first + kernel, size)",
                 "(first + kernel)"),
        Mutation("lrn_window", "normalize.hpp", "k <= size - 1 - before", "k < size - 1 - before"),
        Mutation("group_offset", "control.hpp", "group_at += d.group_words;", "group_at += 0;"),
        Mutation("carry_lost", "packing.hpp", "bytes[j] = held;", "bytes[j] = 0;"),
        Mutation("prefetch_slot", "planners.hpp",
                 "image_ahead = image_entry + w.image_entries;",
                 "image_ahead = image_entry + w.row_entries;"),
        Mutation("concat_offset", "control.hpp", "addr_t(d.out_addr)",
                 "addr_t(d.out_addr / 2 * 2)"),
        Mutation("index_sign", "weight_loader.hpp", "[number[lane] & mask]",
                 "[number[lane] & (C::TABLE_ENTRIES - 1)]"),
        Mutation("ports_swapped", "weight_loader.hpp", "+ q] = port[q];",
                 "+ q] = port[C::WEIGHT_PORTS - 1 - q];", "wide"),
        Mutation("lane_carry", "planners.hpp", "if (carry_y && !w.depthwise) {",
                 "if (carry_y && lane.value) {", "flat"),
        Mutation("row_end_kept", "finish.hpp", "q.start(pixels);  // pixels beyond",
                 "q.step(true);  // pixels beyond", "narrow"),
        Mutation("next_pass_block", "control.hpp", "read_at = last ? group_at :", "read_at = true ?"
                 " group_at :", "wide"),
        Mutation("resident_again", "planners.hpp", "loaded = reuse ? w.rows :",
                 "loaded = reuse ? y_t(0) :", "flat"),
        Mutation("pixel_once", "packing.hpp", "job.repeat ? Count<16>(0) : job.bits",
                 "job.bits"),
        Mutation("pixel_moves", "planners.hpp", "s == k && !repeat", "s == k"),
        Mutation("product_borrow", "finish.hpp", "(first < 0 ? 1 : 0)", "0"),
        Mutation("product_not_apart", "control.hpp", "C::VALUE_BITS : d.in2_align",
                 "C::VALUE_BITS - 1 : d.in2_align"),
        Mutation("second_input", "control.hpp", "{addr_t(d.in_addr), addr_t(d.in2_addr)},",
                 "{addr_t(d.in_addr), addr_t(d.in_addr)},"),
        Mutation("chip_stride", "control.hpp", "addr_t(d.chip_words),", "addr_t(d.map_words),"),
        Mutation("cache_shared_word", "planners.hpp", "cached && offset != 0 ? 1 : 0", "1"),
        Mutation("scale_lane", "finish.hpp", "scale.factor[lane]", "scale.factor[lane / 8 * 8]"),
        Mutation("scale_order", "weight_loader.hpp", "scale.factor[first + i] =",
                 "scale.factor[first + SCALES - 1 - i] =", "wide"),
        Mutation("scale_of_first_tile", "finish.hpp", "scale = scales.read();",
                 "{\nconst ScaleTile<C> next = scales.read();\n"
                 "if (tile.value == 0) scale = next;\n}", "narrow"),
        Mutation("pair_borrow", "weight_row.hpp", "upper - weight_t(lower < 0 ? 1 : 0)", "upper",
                 "pairs"),
        Mutation("pair_carry", "pair_array.hpp", "negative += lower < 0 ? 1 : 0;", "", "pairs"),
        Mutation("pair_halves", "pair_array.hpp", "sum_t(above) <<",
                 "sum_t(high) <<", "pairs"),
        Mutation("half_tile", "control.hpp", "lanes = d.tile_planes * BLOCK_CODES;",
                 "lanes = C::PE;", "narrow_pairs"),
        Mutation("place_order", "packing.hpp", "from++;", "from += 0;"),
        Mutation("places_swapped", "packing.hpp", "across.start(w.places_w);",
                 "across.start(w.places_h);"),
        Mutation("part_of_a_row", "planners.hpp", "w.raw || w.parts ?", "w.raw ?"),
        Mutation("column_of_another", "mac_array.hpp",
                 "acc_[q][(p + BLOCK_CODES) % C::PE]", "acc_[q][p]"),
        Mutation("lane_of_another", "mac_array.hpp", "+ p % BLOCK_CODES]",
                 "+ (p + 1) % BLOCK_CODES]", "wide"),
        Mutation("rows_of_a_kernel", "planners.hpp",
                 "dy = carry_x ? typename C::y_t(0) : typename C::y_t(dy + w.dilation_h);",
                 "dy = carry_x ? typename C::y_t(0) : typename C::y_t(dy + 1);"),
        Mutation("second_plane", "packing.hpp", "C::PACK_PLANES > 1 ? gear[1 % C::PACK_PLANES]",
                 "C::PACK_PLANES > 2 ? gear[1 % C::PACK_PLANES]", "flat"),
        Mutation("cache_always_fetched", "control.hpp", "tile.value == 0,", "1,"),
    )
}  # fmt: skip


def compile_build(
    build: Build, folder: Path, sanitize: bool = False, mutation: Mutation | None = None
) -> Path:
    """Compile a build into `folder` unless it is there already; return the program."""
    flags = [flag for flag in csim.FLAGS if flag not in ("-O3", "-Werror")] + ["-O1"]
    flags += [*csim.AP_TYPES[build.types], *(TIMING if build.types == "timed" else ())]
    flags += [*(["-w"] if mutation else [])]
    if sanitize:
        flags += [*csim.SANITIZE, *csim.SANITIZE_TYPES[build.types]]
    texts = dict(build.files[1])
    if mutation:
        text = texts[mutation.file]
        if text.count(mutation.old) < 1:
            raise ValueError(f"mutation {mutation.name}: {mutation.file} lacks {mutation.old!r}")
        texts[mutation.file] = text.replace(mutation.old, mutation.new)
    texts |= {path.name: path.read_text() for path in (TEMPLATES / "sim").glob("*.hpp")}
    place = folder / "_".join([build.name, build.types, *([mutation.name] if mutation else [])])
    for name, text in texts.items():
        write_atomic(place / name, text)
    sources = [SOURCE, place / "accelerator.cpp"]
    used = [place / name for name in texts if name.endswith(".hpp")]
    return compile_cpp([*flags, "-I", str(place)], sources, used, place / "engine")
