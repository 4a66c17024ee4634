# SPDX-License-Identifier: Apache-2.0
"""`make bench`: how fast the flow is here, at full size. Figures are ratios or rates of one run.

Prints C-simulation rates, the integer reference against float32 torch, the code generator's time,
and the exact k-means. Builds what it needs under build/.
"""

import argparse
import datetime
import json
import os
import platform
import timeit
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from nuq.formats.network import Network, load
from nuq.model_prep import data, networks, weights
from nuq.model_prep.graph import Graph
from nuq.model_prep.networks.spec import NetworkSpec
from nuq.model_prep.quantize import kmeans
from nuq.model_prep.quantize.calibrate import Calibration
from nuq.model_prep.quantize.reference import Reference
from nuq.model_prep.run import forward
from tests.checkout import ROOT, make, python

CENTROIDS = 32


def best_of(times: int, work: Callable[[], object]) -> float:
    """Seconds of the fastest of several runs."""
    return min(timeit.repeat(work, number=1, repeat=times))


def loaded(net: str) -> tuple[NetworkSpec, np.ndarray, Graph, Network]:
    """(recipe, two images, the float network, its integer network)."""
    spec = networks.get(net)
    pixels = data.load(spec, None, 2).pixels
    graph = weights.load(spec, None if spec.packaged else "seeded", pixels).graph
    return spec, pixels, graph, load(ROOT / "build" / net / "quantized")


def csim(net: str, types: str) -> float:
    """GMAC/s of the C-simulation on one core."""
    make("csim", f"NET={net}", f"CSIM_TYPES={types}", status=0)
    build = ROOT / "build" / net
    python("-m", "nuq.codegen", "csim", f"OUT={build}", f"CSIM_TYPES={types}")
    result = json.loads((build / "report.json").read_text())["csim"]
    if result["mismatches"]:
        raise SystemExit(f"{net}: the C-simulation is not bit-exact")
    return result["mmacs_per_s"] / 1000


def reference_ratio(net: str) -> float:
    """Speed of the integer reference relative to the float32 network, one image."""
    spec, pixels, graph, network = loaded(net)
    codes = network.input.encode(pixels[:1])
    floats = data.to_float(spec, pixels[:1])
    reference = Reference(network)
    integer = best_of(4, lambda: list(reference.run(codes)))
    floating = best_of(4, lambda: forward(graph, floats))
    return floating / integer


def kmeans_ms(net: str) -> float:
    """Milliseconds of the slowest layer's exact k-means on its real histogram."""
    spec, pixels, graph, network = loaded(net)
    fracs = {layer.name: layer.quantizer.frac for layer in network.layers if layer.quantizer}
    calibration = Calibration(graph, pixels, partial(data.to_float, spec), network.qm)
    counts = calibration.counts(network.qm, fracs)
    return 1000 * max(
        best_of(3, lambda c=c: kmeans.exact_kmeans(c, CENTROIDS)) for c in counts.values()
    )


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", default="alexnet,vgg16", help="networks, separated by commas")
    nets = parser.parse_args().nets.split(",")
    torch.set_num_threads(os.cpu_count() or 1)
    print(f"{datetime.date.today()}, {os.cpu_count()} cores, {platform.machine()}")
    for net in nets:
        rows = [
            ("C-simulation, fast types, one core", f"{csim(net, 'fast'):.2f} GMAC/s"),
            ("integer reference / float32 torch", f"{reference_ratio(net):.2f}"),
            (f"exact k-means, {CENTROIDS} centroids, slowest layer", f"{kmeans_ms(net):.1f} ms"),
        ]
        if net != "vgg16":  # minutes there, and no other arithmetic
            rows.insert(1, ("C-simulation, exact types", f"{csim(net, 'exact'):.3f} GMAC/s"))
        build = ROOT / "build" / net
        (build / "report.json").unlink()
        seconds = best_of(1, lambda out=build: python("-m", "nuq.codegen", "codegen", f"OUT={out}"))
        rows.append(("code generator", f"{seconds:.1f} s"))
        for name, value in rows:
            print(f"{net:10s} {name:45s} {value}", flush=True)


if __name__ == "__main__":
    np.seterr(all="raise")
    main()
