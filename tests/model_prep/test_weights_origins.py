# SPDX-License-Identifier: Apache-2.0
"""Weights from the repository, from the publisher and from a seed.

The publisher is a file:// address or a server on this machine: no test needs a network.
"""

import hashlib
import http.server
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nuq.formats.errors import UserError
from nuq.model_prep import data, networks, run, weights
from nuq.model_prep.networks.spec import NetworkSpec

State = dict[str, torch.Tensor]
Save = Callable[..., Path]
PIXELS = np.random.default_rng(1).integers(0, 256, (4, 3, 20, 16), dtype=np.uint8)


@pytest.fixture()
def hub(tmp_path: Path) -> Iterator[Path]:
    """An empty cache folder of torch.hub for the time of a test."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / "hub"))
    yield tmp_path / "hub" / "checkpoints"
    torch.hub.set_dir(before)


@pytest.fixture()
def published(small: NetworkSpec, state: State, checkpoint: Save) -> tuple[NetworkSpec, Path]:
    """The small network with an address where its checkpoint lies, hash in the name."""
    plain = checkpoint(state, "plain.pth")
    digest = hashlib.sha256(plain.read_bytes()).hexdigest()
    path = plain.rename(plain.with_name(f"small-{digest[:8]}.pth"))
    return replace(small, url=path.as_uri()), path


# --------------------------------------------------------------------------------------- packaged


def test_digits_come_trained(digits: NetworkSpec, capsys: pytest.CaptureFixture[str]) -> None:
    images = data.load(digits, None)
    result = weights.load(digits, None, images.pixels)
    assert result.origin == "trained"
    assert capsys.readouterr() == ("", "")
    again = weights.load(digits, str(digits.packaged), images.pixels)
    assert (again.origin, again.sha256) == ("file", result.sha256)


# -------------------------------------------------------------------------------------- published


def test_published_weights_are_fetched_once(
    published: tuple[NetworkSpec, Path], hub: Path, state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, path = published
    result = weights.load(spec, None, PIXELS)
    assert result.origin == "published"
    assert (hub / path.name).read_bytes() == path.read_bytes()
    path.unlink()
    again = weights.load(spec, None, PIXELS)
    assert (again.origin, again.sha256) == ("published", result.sha256)
    expected = state["features.0.weight"].numpy()
    np.testing.assert_array_equal(again.graph.layers[0].weight, expected)
    assert capsys.readouterr() == ("", "")


def test_download_with_a_wrong_hash_is_refused_and_not_kept(
    published: tuple[NetworkSpec, Path], hub: Path
) -> None:
    spec, path = published
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(UserError, match=f"^{spec.url} must have the SHA-256 in its name, but: inv"):
        weights.load(spec, None, PIXELS)
    assert list(hub.iterdir()) == []


def test_damaged_file_in_the_cache_is_refused(
    published: tuple[NetworkSpec, Path], hub: Path
) -> None:
    spec, path = published
    hub.mkdir(parents=True)
    (hub / path.name).write_bytes(path.read_bytes()[:-1])
    prefix = path.stem.split("-")[1]
    text = (
        f"^{hub / path.name} must have a SHA-256 that begins with {prefix}, not [0-9a-f]+; delete"
    )
    with pytest.raises(UserError, match=text):
        weights.load(spec, None, PIXELS)


def test_published_weights_must_fit(
    published: tuple[NetworkSpec, Path], digits: NetworkSpec, hub: Path
) -> None:
    spec, path = published
    with pytest.raises(
        UserError, match=f"^WEIGHTS {hub / path.name} must fit digits, not have miss"
    ):
        weights.load(replace(digits, url=spec.url, packaged=None), None, PIXELS)


def assert_falls_back(spec: NetworkSpec, reason: str, err: str, result: object) -> None:
    assert isinstance(result, weights.WeightsResult)
    assert result.origin == "seeded"
    assert re.fullmatch(
        f"WARNING: {spec.name} runs with SEEDED random weights [(]the published ones could not "
        f"be had: {reason}[)]: its accuracy means nothing; give trained ones with "
        "WEIGHTS=file.pth\n",
        err,
    )


def test_server_that_refuses_leads_to_seeded_weights(
    small: NetworkSpec, hub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spec = replace(small, url=f"http://127.0.0.1:{port}/small-00000000.pth")
    started = time.monotonic()
    result = weights.load(spec, None, PIXELS)
    assert time.monotonic() - started < 5
    out, err = capsys.readouterr()
    assert out == ""
    assert_falls_back(spec, "Connection refused", err, result)


def test_server_that_is_silent_leads_to_seeded_weights(
    small: NetworkSpec, hub: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(weights, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        spec = replace(small, url=f"http://127.0.0.1:{port}/small-00000000.pth")
        started = time.monotonic()
        result = weights.load(spec, None, PIXELS)
        assert time.monotonic() - started < 5
    assert_falls_back(spec, "(no answer within 0.2 s|timed out)", capsys.readouterr().err, result)


def test_name_server_that_is_silent_leads_to_seeded_weights(
    small: NetworkSpec, hub: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A look-up may hang for a minute, whatever the socket's timeout is."""
    release = threading.Event()

    def hang(*args: object, **options: object) -> None:
        release.wait(30)
        raise OSError("released")

    monkeypatch.setattr(weights, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    spec = replace(small, url="http://publisher.invalid/small-00000000.pth")
    started = time.monotonic()
    result = weights.load(spec, None, PIXELS)
    assert time.monotonic() - started < 5
    release.set()
    assert_falls_back(spec, "no answer within 0.2 s", capsys.readouterr().err, result)


@pytest.mark.parametrize("announced", [None, 500_000])
def test_server_without_the_file_or_dying_midway_leads_to_seeded_weights(
    small: NetworkSpec, hub: Path, announced: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200 if announced else 404)
            self.send_header("Content-Length", str(announced or 0))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(b"half")

        def log_message(self, *args: object) -> None:
            """Stay silent."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        spec = replace(small, url=f"http://127.0.0.1:{server.server_port}/small-00000000.pth")
        if announced is None:
            result = weights.load(spec, None, PIXELS)
            assert_falls_back(spec, "Not Found", capsys.readouterr().err, result)
        else:
            with pytest.raises(UserError, match="must have the SHA-256 in its name, but: invalid"):
                weights.load(spec, None, PIXELS)
    finally:
        server.shutdown()
        server.server_close()
    assert not hub.exists() or list(hub.iterdir()) == []


def test_cache_that_cannot_be_written_leads_to_seeded_weights(
    published: tuple[NetworkSpec, Path], hub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, _ = published
    hub.parent.write_text("a file where the folder should be")
    result = weights.load(spec, None, PIXELS)
    assert_falls_back(spec, "(Not a directory|File exists)", capsys.readouterr().err, result)


def test_timeout_of_other_sockets_is_left_alone(
    published: tuple[NetworkSpec, Path], hub: Path
) -> None:
    socket.setdefaulttimeout(77)
    try:
        weights.load(published[0], None, PIXELS)
        assert socket.getdefaulttimeout() == 77
    finally:
        socket.setdefaulttimeout(None)


@pytest.mark.parametrize("net", ["alexnet", "vgg16"])
def test_addresses_end_in_a_hash(net: str) -> None:
    assert re.search(r"/[a-z0-9-]+-[0-9a-f]{8}\.pth$", networks.get(net).url or "")


# ----------------------------------------------------------------------------------------- seeded


def test_seeded_weights_are_announced(
    small: NetworkSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    assert weights.load(small, "seeded", PIXELS).origin == "seeded"
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "WARNING: small runs with SEEDED random weights (WEIGHTS=seeded asks for them): its "
        "accuracy means nothing; give trained ones with WEIGHTS=file.pth\n"
    )


def test_network_without_any_weights_is_seeded(
    small: NetworkSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    assert weights.load(small, None, PIXELS).origin == "seeded"
    assert capsys.readouterr().err.startswith("WARNING: small runs with SEEDED random weights (")


def test_seeded_weights_are_the_same_every_time(small: NetworkSpec) -> None:
    np.random.default_rng(9).random()
    torch.manual_seed(1)
    first = weights.load(small, "seeded", PIXELS)
    torch.manual_seed(2)
    assert weights.load(small, "seeded", PIXELS.copy()).sha256 == first.sha256
    assert weights.load(small, "seeded", PIXELS[::-1].copy() // 3).sha256 != first.sha256


def test_seeded_weights_do_not_depend_on_threads(digits: NetworkSpec) -> None:
    pixels = data.load(digits, None, 4).pixels
    threads, hashes = torch.get_num_threads(), set()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            hashes.add(weights.load(digits, "seeded", pixels).sha256)
    finally:
        torch.set_num_threads(threads)
    assert len(hashes) == 1


@pytest.mark.parametrize("net", ["small", "digits", "alexnet"])
def test_every_seeded_layer_has_unit_variance_before_its_relu(net: str, small: NetworkSpec) -> None:
    spec = small if net == "small" else networks.get(net)
    pixels = PIXELS if net == "small" else data.load(spec, None, 4).pixels
    graph = weights.load(spec, "seeded", pixels).graph
    relus = [layer.activation for layer in graph.layers]
    for layer in graph.layers:
        layer.activation = None
    seen = {}
    x = data.to_float(spec, pixels)
    with torch.inference_mode():
        for layer, relu in zip(graph.layers, relus, strict=True):
            source = seen[layer.inputs[0]] if seen else x
            weight, bias = torch.from_numpy(layer.weight), torch.from_numpy(layer.bias)
            out = run.convolve(layer, source, weight, bias)
            assert float(out.var()) == pytest.approx(1, rel=0.004), layer.name
            out = out.relu() if relu else out
            seen[layer.name] = run.max_pool(layer.pool, out) if layer.pool else out


def test_black_images_do_not_blow_the_weights_up(digits: NetworkSpec) -> None:
    spec = replace(digits, preprocessing=replace(digits.preprocessing, mean=(0.0,)))
    graph = weights.load(spec, "seeded", np.zeros((1, 1, 8, 8), np.uint8)).graph
    assert all(np.isfinite(layer.weight).all() for layer in graph.layers)


@pytest.mark.slow
def test_vgg16_can_be_seeded() -> None:
    spec = networks.get("vgg16")
    result = weights.load(spec, "seeded", data.load(spec, None, 4).pixels)
    assert sum(layer.weight.size for layer in result.graph.layers) == 138_344_128
    assert all(np.isfinite(layer.weight).all() for layer in result.graph.layers)
