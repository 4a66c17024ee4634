# SPDX-License-Identifier: Apache-2.0
"""Four builds give the bytes that replay.json records."""

import shutil

import pytest

from tests import replay


@pytest.mark.parametrize("name", replay.BUILDS)
def test_a_build_gives_the_recorded_bytes(name, tmp_path):
    """A change that is meant to move bytes records them anew and says so in its commit."""
    if not replay.has_avx2():
        pytest.skip("the digests are recorded for processors with AVX2")
    assert replay.replay(name, tmp_path) == replay.recorded()[name]


def test_a_digest_sees_one_bit_and_not_a_copied_header(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/weights.bin").write_bytes(b"\x00\x01")
    before = replay.folder_digest(tmp_path / "a", "0" * 64)
    shutil.copy(replay.ROOT / "hls_templates/engine/mac_array.hpp", tmp_path / "a")
    assert replay.folder_digest(tmp_path / "a", "0" * 64) == before
    (tmp_path / "a/weights.bin").write_bytes(b"\x00\x03")
    assert replay.folder_digest(tmp_path / "a", "0" * 64) != before
