# SPDX-License-Identifier: Apache-2.0
"""The fuzzer itself: a few networks, all regression cases, and every seeded bug is found.

The cases are networks that once failed, and the shrunk networks that show each seeded bug.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.checkout import needs_compiler
from tests.fuzz import compare
from tests.fuzz.builds import BUILDS, MUTATIONS, compile_build
from tests.fuzz.compare import Case, prepare, run
from tests.fuzz.work import CASES, find_build, from_json, make_case, prune, shrink, to_json
from tests.networks import draw

pytestmark = needs_compiler
REGRESSIONS = sorted(CASES.glob("*.json"))
QUICK = ("wrong_pad", "pool_off_by_one", "no_saturation")
FOUND_WITHIN = 50


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The builds, each compiled once."""
    folder = tmp_path_factory.mktemp("fuzz")
    return {build.name: compile_build(build, folder) for build in BUILDS}


def test_random_networks(programs: dict[str, Path]) -> None:
    for index in range(25):
        _, build, case = make_case(2, index)
        assert run(case, programs[build.name]) is None, f"seed 2, network {index}"


@pytest.mark.slow
def test_no_timed_network_hangs_or_is_faster_than_its_busiest_process(tmp_path: Path) -> None:
    timed = {build.name: compile_build(replace(build, types="timed"), tmp_path) for build in BUILDS}
    for index in range(50):
        _, build, case = make_case(4, index)
        assert run(case, timed[build.name], timed=True) is None, f"seed 4, network {index}"


def test_the_same_seed_gives_the_same_network() -> None:
    assert make_case(3, 4)[2] == make_case(3, 4)[2]
    assert make_case(3, 4)[2] != make_case(3, 5)[2]


@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: path.stem)
def test_regression_case(path: Path, programs: dict[str, Path]) -> None:
    toy, build = from_json(path.read_text())
    assert run(prepare(toy, build), programs[build.name]) is None


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in sorted(MUTATIONS)],
)
def test_a_seeded_bug_is_found(name: str, tmp_path: Path) -> None:
    mutation = MUTATIONS[name]
    program = compile_build(find_build(mutation.build), tmp_path, mutation=mutation)
    found = (run(make_case(1, i, mutation.build)[2], program) for i in range(FOUND_WITHIN))
    assert any(found), f"{name} must be found within {FOUND_WITHIN} networks"
    path = CASES / f"{name}.json"
    toy, build = from_json(path.read_text())
    assert run(prepare(toy, build), program) is not None, f"{path.name} must show the bug"


def test_wrong_counts_and_strays_are_seen(programs: dict[str, Path]) -> None:
    _, build, case = make_case(5, 0)
    name, words, expected, counts = case.layers[0]
    wrong = Case(case.files, [(name, words, expected, {**counts, "pool": 1})], case.images, None)
    assert run(wrong, programs[build.name]) == f"layer {name}: pool must be 1, not {counts['pool']}"
    flipped = bytes([expected[0] ^ 1]) + expected[1:]
    wrong = Case(case.files, [(name, words, flipped, counts)], case.images, None)
    text = run(wrong, programs[build.name])
    assert text == f"layer {name}: byte 0 of {len(expected)} differs"
    assert run(Case({}, [], 1, "why"), programs[build.name]) == "why"
    short = {**case.files, "golden/input.bin": b""}
    stopped = run(Case(short, [], 1, None), programs[build.name])
    assert stopped and re.match(
        "the engine stopped with status 2: error: .*input.bin must", stopped
    )


def test_an_engine_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "engine"
    program.write_text("#!/bin/sh\nwhile :; do :; done\n")
    program.chmod(0o755)
    monkeypatch.setattr(compare, "SECONDS", 1)
    assert run(Case({}, [], 1, None), program) == "the engine must end within 1 s of CPU"


def test_shrinking_keeps_what_fails() -> None:
    toy, build, _ = make_case(1, 6)
    assert any(layer.kind == "add" for layer in toy.layers)
    small = shrink(toy, build, lambda case: any(c["read"] > 40 for *_, c in case.layers))
    assert len(small.layers) < len(toy.layers) and small.images == 1
    text = to_json(small, build, "why")
    assert from_json(text) == (small, build) and prune(small) == small


def test_what_is_drawn() -> None:
    """Nothing beyond the build's limits; max pools behind concats and in their parts, too."""
    narrow = find_build("narrow")
    drawn = [draw(np.random.default_rng(seed), narrow, seed) for seed in range(400)]
    kinds = {layer.kind for toy in drawn[:30] if toy for layer in toy.layers}
    assert {"conv", "add", "mul", "maxpool", "avgpool"} <= kinds
    assert not any(layer.kind == "lrn" for toy in drawn if toy for layer in toy.layers)
    behind = inside = 0
    for toy in filter(None, drawn):
        pool = {layer.name: layer.pool for layer in toy.layers}
        behind += sum(layer.kind == "maxpool" and layer.source in toy.concats
                      for layer in toy.layers)  # fmt: skip
        for parts in toy.concats.values():
            inside += all(pool[part] and pool[part] == pool[parts[0]] for part in parts)
    assert behind >= 3 and inside >= 3
