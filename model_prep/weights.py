# SPDX-License-Identifier: Apache-2.0
"""Where a network's weights come from: a file, the repository, the publisher, or a seed.

Seeded weights make the flow run without any download: normal numbers, scaled layer by layer from
data so that activations look like a trained network's.
"""

import hashlib
import pickle
import socket
import struct
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from threading import Thread
from urllib.request import Request, urlopen

import numpy as np
import torch

from nuq.formats.build import sha256_file
from nuq.formats.errors import UserError
from nuq.model_prep import data
from nuq.model_prep.graph import Graph
from nuq.model_prep.networks.spec import NetworkSpec
from nuq.model_prep.seeding import reseed

TIMEOUT_S = 5.0  # for the publisher's server to answer; an offline machine goes on after this
SCALING_IMAGES = 4
LISTED = 3  # tensors of one kind named in one message at most

# What torch.load raises on damaged files, found by feeding it some.
_DAMAGED = (
    RuntimeError, pickle.UnpicklingError, EOFError, ValueError, LookupError, AttributeError,
    AssertionError, TypeError, ImportError, OverflowError, MemoryError, OSError, struct.error,
    zipfile.BadZipFile,
)  # fmt: skip
_WRAPPERS = ("module.", "model.", "_orig_mod.")  # of DataParallel, Lightning, torch.compile


@dataclass(frozen=True)
class WeightsResult:
    """A Graph and where its weights came from."""

    graph: Graph
    origin: str  # "file", "trained" (in this repository), "published" or "seeded"
    sha256: str  # over the float32 bytes of weight, then bias, layer by layer


def load(spec: NetworkSpec, source: str | None, pixels: np.ndarray) -> WeightsResult:
    """The network with weights from `source`: a path, "seeded", or None for the best there is.

    None takes the repository's weights, else the published ones (from torch's cache folder or
    downloaded, checked by hash), else seeded ones with a warning.

    Args:
        spec: the network.
        source: see above.
        pixels: uint8 [N, C, H, W], images from which seeded weights are scaled.

    Raises:
        UserError: a file that is no fitting checkpoint, or published weights with a wrong hash.
    """
    why = "WEIGHTS=seeded asks for them"
    if source is not None and source != "seeded":
        return result_of(spec.build(read_state(spec, Path(source))), "file")
    if source is None and spec.packaged is not None:
        return result_of(spec.build(read_state(spec, spec.packaged)), "trained")
    if source is None and spec.url is not None:
        file, why = _published_file(spec.url)
        if file is not None:
            return result_of(spec.build(read_state(spec, file)), "published")
    warn_seeded(spec.name, why, "give trained ones with WEIGHTS=file.pth")
    x = data.to_float(spec, pixels[:SCALING_IMAGES])
    return result_of(reseed(spec.empty(), x), "seeded")


def warn_seeded(name: str, why: str, remedy: str) -> None:
    """Say on stderr that the weights are random numbers."""
    print(
        f"WARNING: {name} runs with SEEDED random weights ({why}): its accuracy means nothing; "
        f"{remedy}",
        file=sys.stderr,
    )


def read_state(spec: NetworkSpec, path: Path) -> dict[str, np.ndarray]:
    """Tensors of a checkpoint file as float32 arrays, checked against the network.

    Takes a state_dict or {"state_dict": ...}, with or without the prefixes of DataParallel and
    the like, of any real number type.

    Raises:
        UserError: the file is missing or no checkpoint, or tensors are missing, unknown, of
            another shape, or not finite.
    """
    if not path.is_file():
        raise UserError(f"WEIGHTS must be an existing file, not {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # no permission and the like: nothing is wrong with the contents
        raise UserError(
            f"WEIGHTS must be a state_dict saved by torch.save, not {path} "
            f"({_reason(error)}); save model.state_dict() again"
        ) from None
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise UserError(
            f"WEIGHTS must hold a dictionary of tensors, not {path} with a "
            f"{type(content).__name__}; save model.state_dict()"
        )
    for name, value in content.items():
        if not isinstance(name, str) or not _is_plain(value):
            raise UserError(
                f"WEIGHTS {path} must hold dense tensors of real numbers under names, "
                f"not {type(value).__name__} under {name!r}; save model.state_dict()"
            )
    state = _without_wrappers(content)
    _check(spec, state, path)
    return {name: state[name].detach().to(torch.float32).numpy() for name in spec.state_shapes}


def _reason(error: BaseException) -> str:
    """One short line about a file that torch cannot load."""
    if isinstance(error, pickle.UnpicklingError):
        return "it holds other things than tensors"  # torch's own text is a page of advice
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__


def _is_plain(value: object) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and not (value.is_meta or value.is_quantized or value.is_complex())
    )


def _without_wrappers(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors without wrappers' names, which all share or which stand inside; they may nest."""
    plain = dict(state)
    while prefix := next(
        (p for p in _WRAPPERS if plain and all(n.startswith(p) for n in plain)), ""
    ):
        plain = {name.removeprefix(prefix): value for name, value in plain.items()}
    return {name.replace(".module.", "."): value for name, value in plain.items()}


def _check(spec: NetworkSpec, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """UserError if `state` does not hold the network's tensors, no more and no less, all finite."""
    shapes = spec.state_shapes
    lists = {
        "missing": [f"{name} {list(shapes[name])}" for name in shapes if name not in state],
        "unknown": [f"{name} {list(state[name].shape)}" for name in state if name not in shapes],
        "wrong": [
            f"{name} must have shape {list(shapes[name])}, not {list(state[name].shape)}"
            for name in shapes
            if name in state and tuple(state[name].shape) != shapes[name]
        ],
    }
    problems = []
    for kind, names in lists.items():
        if names:
            more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
            problems.append(f"{kind} tensors: {', '.join(names[:LISTED])}{more}")
    if problems:
        raise UserError(f"WEIGHTS {path} must fit {spec.name}, not have {'; '.join(problems)}")
    for name in shapes:
        if not bool(torch.isfinite(state[name].detach().to(torch.float32)).all()):
            raise UserError(
                f"WEIGHTS {path} must be finite in float32, but tensor {name} holds NaN or Inf"
            )


def _published_file(url: str) -> tuple[Path | None, str]:
    """(the published file in torch's cache folder, downloaded if need be; or None and why not)."""
    name = url.rsplit("/", 1)[1]
    prefix = Path(name).stem.rsplit("-", 1)[1]
    file = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not file.is_file():
        trouble = _no_answer(url) or _download(url, file, prefix)
        if trouble:
            return None, f"the published ones could not be had: {trouble}"
    found = sha256_file(file)
    if not found.startswith(prefix):
        raise UserError(
            f"{file} must have a SHA-256 that begins with {prefix}, not {found}; "
            "delete it, so that it is downloaded again"
        )
    return file, ""


def _no_answer(url: str) -> str:
    """Why the server does not answer; empty where it does.

    In a thread, as looking up a name may take longer than any timeout of a socket.
    """
    troubles = []

    def ask() -> None:
        try:
            urlopen(Request(url, method="HEAD"), timeout=TIMEOUT_S).close()
            troubles.append("")
        except (OSError, HTTPException) as error:
            troubles.append(_os_reason(error))

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    return troubles[0] if troubles else f"no answer within {TIMEOUT_S:g} s"


def _download(url: str, file: Path, prefix: str) -> str:
    """Download to `file` and check its hash; why that failed, or an empty string."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), prefix, progress=sys.stderr.isatty())
    except (OSError, HTTPException) as error:
        return _os_reason(error)
    except RuntimeError as error:  # torch's word for a wrong hash
        raise UserError(f"{url} must have the SHA-256 in its name, but: {error}") from None
    finally:
        socket.setdefaulttimeout(before)
    return ""


def _os_reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return str(getattr(reason, "strerror", None) or reason or type(error).__name__)


def result_of(graph: Graph, origin: str) -> WeightsResult:
    """A Graph with the hash of its parameters."""
    digest = hashlib.sha256()
    for layer in graph.layers:
        digest.update(np.ascontiguousarray(layer.weight, np.float32).data)
        digest.update(np.ascontiguousarray(layer.bias, np.float32).data)
    return WeightsResult(graph, origin, digest.hexdigest())
