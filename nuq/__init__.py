# SPDX-License-Identifier: Apache-2.0
"""The one name under which everything is installed; `python -m nuq` is the console command.

`from nuq import Flow` is the same from Python (nuq/flow.py). In a checkout the packages are links
to the folders beside this one; a wheel has them inside, and a board only those that it needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nuq.flow import FailedError, Flow
    from nuq.formats.errors import UserError
else:
    PLACES = {"Flow": "flow", "FailedError": "flow", "UserError": "formats.errors"}

    def __getattr__(name: str) -> Any:
        """What is imported when it is first used, so that a command waits for nothing else."""
        if name not in PLACES:
            raise AttributeError(f"module 'nuq' has no attribute {name!r}")
        return getattr(import_module(f"nuq.{PLACES[name]}"), name)


__all__ = ["FailedError", "Flow", "UserError"]
