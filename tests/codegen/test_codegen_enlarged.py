# SPDX-License-Identifier: Apache-2.0
"""Maps that are stored larger than they are computed: tiles, rows of the table, C-simulation."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nuq.codegen.design.array import Array
from nuq.codegen.design.places import split_places
from nuq.codegen.design.planner import plan
from nuq.codegen.design.rows import Row
from nuq.formats.arithmetic import Upscale
from nuq.formats.errors import UserError
from nuq.formats.hardware import find_part
from nuq.formats.network import Layer, Network, load
from tests.checkout import needs_compiler
from tests.toys import POOL1, POOL2, Toy, ToyLayer, change_json, simulated

SHUFFLED, REPEATED = Upscale((2, 2), True), Upscale((2, 2), False)


def enlarged(bits: int) -> Toy:
    """A shuffled part of a concat, repeated pixels of a pool, an average, an add and a copy."""
    same = {"pads": (1, 1, 1, 1), "scheme": "knq", "bits": bits}
    layers = [
        ToyLayer(16, name="skip", **same),
        ToyLayer(24, stride=(2, 2), name="down", **same),
        ToyLayer(32, (1, 1), source="down", like="skip", upscale=SHUFFLED, bits=bits, name="up"),
        ToyLayer(20, pads=(1, 1, 1, 1), source="joined", scheme="uniform", bits=9, pool=POOL2,
                 upscale=REPEATED, name="both"),
        ToyLayer(kind="avgpool", kernel=(2, 2), stride=(2, 2), upscale=REPEATED, bits=5),
        ToyLayer(kind="add", source2="both", upscale=Upscale((1, 3), False), scheme="enq", bits=5),
        ToyLayer(kind="maxpool", pool=POOL1, upscale=Upscale((2, 1), False), scheme="enq", bits=5),
        ToyLayer(27, (1, 1), (2, 2), upscale=Upscale((1, 3), True), scheme="knq", bits=3),
        ToyLayer(7, (1, 1)),
    ]  # fmt: skip
    return Toy((3, 12, 14), layers, images=2, concats={"joined": ["up", "skip"]})


@needs_compiler
@pytest.mark.parametrize(
    ("bits", "options", "types"),
    [
        pytest.param(4, "SIMD=8 PE=24 FM=ddr", ("CSIM_TYPES=exact", "SANITIZE=1"),
                     marks=pytest.mark.slow),  # a minute to compile
        (3, "SIMD=8 PE=32 PIXELS=2", ()),
        pytest.param(5, "SIMD=8 PE=40", ("CSIM_TYPES=timed",), marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_bit_exact(
    bits: int, options: str, types: tuple[str, ...], generated: Callable[..., Path]
) -> None:
    build = generated(enlarged(bits), "PART=XC7Z045", *options.split())
    if types == ("CSIM_TYPES=timed",):
        from tests.codegen.test_codegen_timed import timed

        timed(build)
    else:
        simulated(build, *types)


def row(load_toy: Callable[..., Network], bits: int, pe: int) -> tuple[Layer, Row]:
    """The layer that shuffles, as an array of so many lanes runs it."""
    made = plan(load_toy(enlarged(bits)), find_part("XC7Z045"), Array(8, pe))
    place = [layer.name for layer in made.layers].index("up")
    return made.layers[place], made.rows[place]


def test_rows_of_whole_words_are_interleaved(load_toy: Callable[..., Network]) -> None:
    """Two tiles, of the places of one row each; a third of the lanes has nothing to do."""
    layer, made = row(load_toy, 4, 24)
    assert (made.places_h, made.places_w, made.apart, made.interleave) == (1, 2, 1, 2)
    assert (made.conv_groups, made.tiles_per_group, made.group_words) == (2, 1, 0)
    assert (made.out_row_bytes, made.part_words, made.last_tile_words) == (112, 7, 7)
    assert layer.conv_shape[0] == 48 and made.output_words == made.out_plane_words == 84
    original = load_toy(enlarged(4), "other").layers[2]
    expected = [*range(8), *range(8, 16), *[-1] * 8, *range(16, 32), *[-1] * 8]
    for lane, channel in enumerate(expected):
        weights = original.weight[channel] if channel >= 0 else np.zeros_like(layer.weight[lane])
        assert np.array_equal(layer.weight[lane], weights)


def test_other_rows_need_all_places_in_a_tile(load_toy: Callable[..., Network]) -> None:
    _, made = row(load_toy, 3, 32)
    assert (made.places_h, made.places_w, made.interleave, made.part_words) == (2, 2, 1, 0)
    assert made.out_row_bytes == 2 * 14 * 3 and made.tile_planes == 1


@pytest.mark.parametrize(("bits", "pe"), [(3, 24), (4, 8)])
def test_an_array_that_is_too_narrow_is_refused(
    bits: int, pe: int, load_toy: Callable[..., Network]
) -> None:
    text = (
        "^layer up: PE must be 32 or more to store its channels at 2x2 places, or 16 or more where "
        f"rows of its output are whole 64-bit words, as those of BITS=8 are, not {pe}; use a "
        "larger PE$"
    )
    with pytest.raises(UserError, match=text):
        row(load_toy, bits, pe)


def test_channels_of_a_plane_are_filled_up(load_toy: Callable[..., Network]) -> None:
    """9 channels at 1x3 places are 2 planes: lanes of the second one beyond the ninth are 0."""
    layer = load_toy(enlarged(4)).layers[-2]
    made = split_places(layer, 48)
    assert made and made.conv_shape[0] == 48 and made.groups == 1
    assert np.array_equal(made.bias[:8], layer.bias[:8])
    assert np.array_equal(made.bias[[24, 32, 40]], layer.bias[[8, 17, 26]])
    assert not made.bias[25:32].any() and not made.weight[25:32].any()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"factor": [0, 2], "shuffle": False}, "must follow its schema: .*factor"),
        ({"factor": [2, 17], "shuffle": False}, "must follow its schema: .*factor"),
        ({"factor": [2, 2], "shuffle": True}, "conv_shape and out_shape must follow"),
        (None, "conv_shape and out_shape must follow"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    change: dict | None, text: str, make_toy: Callable[..., Path]
) -> None:
    build = make_toy(enlarged(4))

    def spoil(manifest: dict) -> None:
        manifest["layers"][3]["upscale"] = change

    change_json(build / "quantized" / "manifest.json", spoil)
    with pytest.raises(UserError, match=text):
        load(build / "quantized")


def test_a_head_and_a_grouped_convolution_have_none(load_toy: Callable[..., Network]) -> None:
    from nuq.formats.rules import check_layer

    _, _, shuffled, *_, head = load_toy(enlarged(4)).layers
    for layer, text in (
        (replace(head, upscale=REPEATED), "a head must have no upscale"),
        (replace(shuffled, groups=8, weight=shuffled.weight[:, :3]), "of a convolution of one gr"),
    ):
        with pytest.raises(UserError, match=text):
            check_layer(layer, layer.out_shape)


def test_raw_pixels_of_one_tile_are_written_a_row_at_a_time(
    load_toy: Callable[..., Network],
) -> None:
    """Else a burst of a few words a pixel waits for the DRAM; several tiles' pixels do not meet."""
    one, many, long = (Toy((3, 9, width), [ToyLayer(out, (1, 1))]) for out, width in
                       ((7, 11), (27, 11), (8, 70)))  # fmt: skip
    rows = [
        plan(load_toy(toy, name), find_part("XC7Z045"), Array(8, 24)).rows[0]
        for name, toy in (("one", one), ("many", many), ("long", long))
    ]
    assert [(made.part_words, made.write_rows) for made in rows] == [(77, 9), (0, 99), (0, 630)]
