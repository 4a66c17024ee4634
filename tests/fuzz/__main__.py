# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.fuzz --count N --seed S`: exit status 0 where all agree, 1 where one differs.

Failures are shrunk and saved as JSON (--keep DIR, default tests/fuzz/cases), which a test replays.
"""

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from nuq.formats.build import write_atomic
from tests.fuzz.builds import BUILDS, MUTATIONS, Build, compile_build
from tests.fuzz.compare import run
from tests.fuzz.work import CASES, make_case, shrink, to_json
from tests.toys import Toy


def one(
    seed: int, only: str | None, programs: dict[str, Path], timed: bool, index: int
) -> str | None:
    """Run network number `index`; what is wrong with it, or None."""
    _, build, case = make_case(seed, index, only)
    return run(case, programs[build.name], timed)


def keep(path: Path, failure: str, toy: Toy, build: Build, program: Path) -> None:
    """Shrink a failure and save it."""
    small = shrink(toy, build, lambda case: run(case, program) is not None)
    write_atomic(path, to_json(small, build, failure))
    print(f"shrunk to {len(small.layers)} layers: {path}")


def main() -> int:
    """Run the networks, report, shrink what failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="networks (default 200)")
    parser.add_argument("--seed", type=int, default=1, help="of the generator (default 1)")
    parser.add_argument(
        "--build", choices=[build.name for build in BUILDS], help="the engine (default all of them)"
    )
    parser.add_argument("--timed", action="store_true", help="a clock in every process")
    parser.add_argument("--sanitize", action="store_true", help="address and UB sanitizers")
    parser.add_argument(
        "--keep", type=Path, help=f"where failures are saved (default {CASES.name}/ of the tests)"
    )
    parser.add_argument("--mutate", choices=sorted(MUTATIONS), help="seed this bug into the C++")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args()
    if options.count < 1 or options.seed < 0 or options.jobs < 1:
        print("error: --count and --jobs must be 1 or more, --seed 0 or more", file=sys.stderr)
        return 2
    mutation = MUTATIONS[options.mutate] if options.mutate else None
    only = mutation.build if mutation else options.build
    builds = [build for build in BUILDS if only is None or build.name == only]
    if options.timed:
        builds = [replace(build, types="timed") for build in builds]
    start = time.monotonic()
    failures: dict[int, str] = {}
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(options.jobs) as pool:
        make = partial(compile_build, folder=Path(folder), sanitize=options.sanitize,
                       mutation=mutation)  # fmt: skip
        programs = dict(zip([build.name for build in builds], pool.map(make, builds), strict=True))
        compiled = time.monotonic()
        found = pool.map(
            partial(one, options.seed, only, programs, options.timed), range(options.count)
        )
        for index, failure in tqdm(
            enumerate(found), total=options.count, desc="networks", unit="net",
            disable=not sys.stderr.isatty(),
        ):  # fmt: skip
            if failure:
                failures[index] = failure
                print(f"FAILED: seed {options.seed}, network {index}: {failure}", flush=True)
                if mutation:
                    pool.shutdown(wait=False, cancel_futures=True)
                    break
        ended = time.monotonic()
        print(
            f"seed {options.seed}: {options.count} networks, {len(failures)} failed, "
            f"{compiled - start:.0f} s to compile, {ended - compiled:.0f} s to run"
        )
        for index, failure in failures.items() if options.keep or not mutation else ():
            name = mutation.name if mutation else f"seed{options.seed}_network{index}"
            path = (options.keep or CASES) / f"{name}.json"
            toy, build, _ = make_case(options.seed, index, only)
            keep(path, failure, toy, build, programs[build.name])
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
