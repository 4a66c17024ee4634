# SPDX-License-Identifier: Apache-2.0
"""Max pools behind concatenations, fused into the convolutions that are joined there.

A max pool works on each channel apart, so pooling the parts and joining them gives the same values
as pooling what is joined; only the pooled maps are then stored.
"""

from collections import Counter

from model_prep.onnx.fuse import reachable
from model_prep.onnx.operations import Op


def spread_pools(output: Op) -> int:
    """Fuse max pools into all the convolutions they read, where each can take it.

    The concatenation takes the pool's place: what read the pool reads it, and its shape is the
    pooled one. A pool stays an operation of its own where a part is no convolution with a ReLU, has
    a pool already, or is read by something else, or where something else reads the concatenation.

    Args:
        output: the last operation, which is no max pool; operations are changed in place.

    Returns:
        The number of max pools that went away.
    """
    order = reachable(output)
    uses = Counter(id(source) for op in order for source in op.inputs)
    instead: dict[int, Op] = {}
    for op in order:
        op.inputs = [instead.get(id(source), source) for source in op.inputs]
        if op.kind != "maxpool" or op.pool is None:
            continue
        source = op.inputs[0]
        below = _read_by_one(source, uses)
        if below is None:
            continue
        for one in below:
            one.shape = (one.shape[0], *op.shape[1:])
            if one.kind == "conv":
                one.pool = op.pool
        uses[id(source)] = uses[id(op)]
        instead[id(op)] = source
    return len(instead)


def _read_by_one(source: Op, uses: Counter[int]) -> list[Op] | None:
    """`source`, the concatenations nested in it and their parts; None where one takes no pool."""
    found: list[Op] = []
    stack = [source]  # no recursion: a file may nest as deep as it likes
    while stack:
        op = stack.pop()
        rectified = op.kind == "conv" and op.relu and op.pool is None
        if uses[id(op)] != 1 or not (rectified or op.kind == "concat"):
            return None
        found.append(op)
        if op.kind == "concat":
            stack.extend(op.inputs)
    return found
