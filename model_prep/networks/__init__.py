# SPDX-License-Identifier: Apache-2.0
"""The registry: every module of this package but `spec` holds one `NETWORK`.

Adding a network is adding one file.
"""

import importlib
import pkgutil
from functools import cache
from pathlib import Path

from nuq.formats.errors import UserError, meant
from nuq.model_prep.networks.spec import NetworkSpec

_NOT_NETWORKS = {"spec"}


@cache
def registry() -> dict[str, NetworkSpec]:
    """All networks by name, in alphabetical order."""
    modules = {module.name for module in pkgutil.iter_modules(__path__)} - _NOT_NETWORKS
    specs = [importlib.import_module(f"{__name__}.{module}").NETWORK for module in modules]
    return {spec.name: spec for spec in sorted(specs, key=lambda spec: spec.name)}


def get(name: str) -> NetworkSpec:
    """The network called `name`; UserError lists what exists.

    >>> get("alexnet").parameters, get("vgg16").parameters
    (61100840, 138357544)
    """
    specs = registry()
    if name not in specs:
        names, end = ", ".join(specs), Path(name).suffix
        hint = meant(name, specs)
        if end == ".toml":
            hint = f"; settings are given as CONFIG={name}"
        elif end:
            names += " or an .onnx file"
            hint = (
                "; export a network of torch to that first (docs/tutorial.md), or give weights of "
                "one of these as WEIGHTS"
            )
        raise UserError(f"NET must be one of {names}, not {name!r}{hint}")
    return specs[name]
