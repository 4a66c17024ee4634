# SPDX-License-Identifier: Apache-2.0
"""Builds: the engine compiled once per configuration, for any network within its limits.

Also the seeded bugs ("mutations") that a copy of its sources can be given.
"""

from dataclasses import dataclass, fields
from pathlib import Path

from codegen.emit import csim
from codegen.emit.render import headers
from formats.build import compile_cpp, write_atomic

SOURCE = Path(__file__).with_name("engine.cpp")


@dataclass(frozen=True)
class Build:
    """One configuration of the engine."""

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
    arena_words: int = 1 << 16
    chip_words: int = 1 << 14
    weight_ports: int = 1
    pixels: int = 1
    low_bits: int = 4

    @property
    def defines(self) -> list[str]:
        """Compiler options that set the constants."""
        names = [item.name for item in fields(self) if item.name not in ("name", "types")]
        value = "int32_t" if self.weight_bits <= 14 else "int64_t"
        return [f"-DFUZZ_VALUE={value}"] + [
            f"-DFUZZ_{name.upper()}={getattr(self, name)}" for name in names
        ]


BUILDS = (
    Build("small", 8, 24, 14, 6),
    Build("wide", 16, 32, 8, 32, weight_rows=36, line_blocks=320, pixels=2, weight_ports=4),
    Build("narrow", 8, 8, 16, 1, weight_rows=64, line_blocks=512, pixels=3),
    Build("exact", 24, 40, 5, 8, types="exact", weight_rows=49, line_blocks=768, weight_ports=3),
    Build("flat", 40, 24, 14, 4, weight_rows=40, line_blocks=1024, pixels=4),
)


@dataclass(frozen=True)
class Mutation:
    """One seeded bug: `old` in `file` becomes `new`; found on networks that build `build` runs."""

    name: str
    file: str
    old: str
    new: str
    build: str = "small"


MUTATIONS = {
    item.name: item
    for item in (
        Mutation("wrong_pad", "compute.hpp", "top = oy * d.stride_h - d.pad_top;",
                 "top = oy * d.stride_h - d.pad_left;"),
        Mutation("pad_swapped", "compute.hpp", "-d.pad_left,", "-d.pad_top,"),
        Mutation("padding_is_code_0", "compute.hpp", "= inside ? decoded : ",
                 "= inside ? decoded : decoder(0) != 0 ? decoder(0) : "),
        Mutation("dilation_lost", "line_buffer.hpp", "(d.dilation_h * d.in_width - x_end)",
                 "(d.in_width - x_end)"),
        Mutation("ring_wrap", "compute.hpp", "ahead >= corner.ring ?", "ahead > corner.ring ?"),
        Mutation("chunk_restarts", "compute.hpp", "first_chunk ? start[p] : before.pixel[q].sum[p]",
                 "start[p]", "wide"),
        Mutation("pool_off_by_one", "pooling.hpp", "x >= 0 && x < d.conv_width;",
                 "x >= 0 && x < d.conv_width - 1;"),
        Mutation("pool_row_late", "pooling.hpp", "min_of(top + d.pool_h, d.conv_height)",
                 "min_of(top + d.pool_h - 1, d.conv_height)"),
        Mutation("no_saturation", "conversion_units.hpp",
                 "min_of((int(value) + half) >> shift, largest)", "(int(value) + half) >> shift"),
        Mutation("no_upper_clamp", "requantize.hpp", "if (y > wide_t(y_max)) y = wide_t(y_max);",
                 ""),
        Mutation("no_rounding", "requantize.hpp", "(y + (wide_t(1) << (shift - 1))) >> shift",
                 "y >> shift"),
        Mutation("no_sign", "conversion_units.hpp", "(int(code) ^ sign_) - sign_", "int(code)"),
        Mutation("wrong_align", "compute.hpp", "second ? d.in2_align : d.in_align", "d.in_align"),
        Mutation("average_counts_pad", "normalize.hpp", "min_of(first + kernel, size)",
                 "(first + kernel)"),
        Mutation("lrn_window", "normalize.hpp", "k <= size - 1 - before", "k < size - 1 - before"),
        Mutation("group_offset", "engine.hpp", "conv ? group * d.blocks + start :",
                 "conv ? start :"),
        Mutation("carry_lost", "packing.hpp", "bytes[j] = held;", "bytes[j] = 0;"),
        Mutation("prefetch_slot", "compute.hpp", "next_image ? rows_needed",
                 "next_image && d.kernel_h > 1 ? rows_needed"),
        Mutation("concat_offset", "packing.hpp", "n * C::ARENA_WORDS + d.out_addr",
                 "n * C::ARENA_WORDS + d.out_addr / 2 * 2"),
        Mutation("index_sign", "weight_loader.hpp", "[number[lane] & mask]",
                 "[number[lane] & (C::TABLE_ENTRIES - 1)]"),
        Mutation("ports_swapped", "weight_loader.hpp", "+ q] = word[q];",
                 "+ q] = word[C::WEIGHT_PORTS - 1 - q];", "wide"),
        Mutation("lane_carry", "line_buffer.hpp", "block_carry ? x_limit_ - x_step_ : x_limit_",
                 "x_limit_", "flat"),
        Mutation("row_end_kept", "finish.hpp", "q = row_end || (full", "q = (full", "narrow"),
        Mutation("next_pass_block", "layer.hpp", "next ? pass.next_block : pass.first_block",
                 "pass.first_block", "wide"),
        Mutation("resident_again", "compute.hpp", "if (reuse) loaded = d.rows_used;",
                 "if (reuse) loaded = 0;", "flat"),
        Mutation("second_input", "packing.hpp", "second ? d.in2_addr : d.in_addr", "d.in_addr"),
        Mutation("chip_stride", "packing.hpp", "d.chip_swap ? C::CHIP_B_WORDS : C::CHIP_A_WORDS",
                 "C::CHIP_A_WORDS"),
        Mutation("cache_shared_word", "packing.hpp", "const int32_t held = fetch ? shared :",
                 "const int32_t held = fetch ? 1 :"),
        Mutation("cache_always_fetched", "engine.hpp", "pass.fetch = group_tile == 0;",
                 "pass.fetch = 1;"),
    )
}  # fmt: skip


def compile_build(
    build: Build, folder: Path, sanitize: bool = False, mutation: Mutation | None = None
) -> Path:
    """Compile a build into `folder` unless it is there already; return the program."""
    flags = [flag for flag in csim.FLAGS if flag not in ("-O3", "-Werror")] + ["-O1"]
    flags += [*csim.AP_TYPES[build.types], *(["-w"] if mutation else [])]
    if sanitize:
        flags += [*csim.SANITIZE, *csim.SANITIZE_TYPES[build.types]]
    texts = headers()
    if mutation:
        text = texts[mutation.file]
        if text.count(mutation.old) < 1:
            raise ValueError(f"mutation {mutation.name}: {mutation.file} lacks {mutation.old!r}")
        texts[mutation.file] = text.replace(mutation.old, mutation.new)
    place = folder / "_".join([build.name, build.types, *([mutation.name] if mutation else [])])
    for name, text in texts.items():
        write_atomic(place / name, text)
    flags += [*build.defines, "-I", str(place)]
    return compile_cpp(flags, [SOURCE], [place / name for name in texts], place / "engine")
