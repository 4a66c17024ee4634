# SPDX-License-Identifier: Apache-2.0
"""Exact one-dimensional k-means on a histogram of integers (KNQ of papers 000/001, section III).

A requantized activation is one of 2^qm integers, so the histogram over all calibration activations
describes the data without loss, and the best centroid table is found by dynamic programming: no
sampling, no restarts, no seed. `turning_table` does the same for a function of them that falls
before it rises.
"""

import heapq

import numpy as np

from nuq.formats.errors import UserError


class _Clusters:
    """Costs of clusters of neighbouring values, in exact int64 arithmetic.

    The cost of values[a:b] is the sum of count * (value - c)^2 with the best *integer* c, which is
    an integer nearest to the mean: S2 - 2 c S1 + c^2 S0, from prefix sums. `c` lies between the
    smallest and the largest value of its cluster, so the costs are Monge (quadrangle inequality)
    as with real means, and the best split point never moves left as a range grows.

    Exactness: with N the total count and M the largest value, N * M^2 < 2^61 bounds every product
    and every sum by 2^62, so int64 never wraps. N * M < 2^50 makes the float64 quotient S1 / S0
    nearer to the true mean than any mean that is not a tie is to a tie, so `rint` finds a nearest
    integer (at a tie both neighbours cost the same). Both are checked in Python integers.
    """

    def __init__(self, values: np.ndarray, counts: np.ndarray, largest: int | None = None) -> None:
        """`largest` of the values where that is not the last one."""
        total = sum(counts.tolist())
        largest = int(values[-1]) if largest is None else largest
        if total * largest * largest >= 1 << 61 or total * largest >= 1 << 50:
            raise UserError(
                f"histogram must stay exact in 64 bits, not {total} activations up to {largest}; "
                "use fewer calibration images or a smaller QM"
            )
        zero = np.zeros(1, np.int64)
        self.s0 = np.concatenate([zero, np.cumsum(counts)])
        self.s1 = np.concatenate([zero, np.cumsum(counts * values)])
        self.s2 = np.concatenate([zero, np.cumsum(counts * values * values)])

    def __len__(self) -> int:
        """Number of distinct values."""
        return len(self.s0) - 1

    def centroids(self, splits: np.ndarray) -> np.ndarray:
        """Nearest integer to the mean, halves upwards, of each values[splits[j]:splits[j + 1]]."""
        s0, s1 = np.diff(self.s0[splits]), np.diff(self.s1[splits])
        return (2 * s1 + s0) // (2 * s0)

    def costs(self, start: int, stops: np.ndarray) -> np.ndarray:
        """Cost of values[start:stop] as one cluster, for each stop."""
        s0, s1, s2 = (one[stops] - one[start] for one in (self.s0, self.s1, self.s2))
        center = np.rint(s1 / s0).astype(np.int64)
        return s2 + center * (center * s0 - 2 * s1)

    def first_costs(self, zero_first: bool) -> np.ndarray:
        """Cost of values[:i] as one cluster for i = 0..n; its centroid is 0 if `zero_first`."""
        costs = self.s2.copy()
        if not zero_first:
            s0, s1 = self.s0[1:], self.s1[1:]
            center = np.rint(s1 / s0).astype(np.int64)
            costs[1:] += center * (center * s0 - 2 * s1)
        return costs


def _best_splits(
    clusters: _Clusters, before: np.ndarray, rows: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(least cost, its leftmost split) of before[a] + cost(values[a:i]), low <= a <= high, a row i.

    All rows of one level of the divide and conquer at once: their candidate ranges lie end to end
    in one flat array, whose length is at most the number of values plus the number of rows.
    """
    lengths = high - low + 1
    ends = np.cumsum(lengths)
    starts = ends - lengths
    row = np.repeat(np.arange(len(rows)), lengths)
    split = np.arange(ends[-1]) + (low - starts)[row]
    s0 = clusters.s0[rows][row] - clusters.s0[split]
    s1 = clusters.s1[rows][row] - clusters.s1[split]
    center = np.rint(s1 / s0).astype(np.int64)
    # cost = S2(i) + [before(a) - S2(a)] + c (c S0 - 2 S1); S2(i) is the same for the whole row.
    part = center * s0
    part -= s1
    part -= s1
    part *= center
    part += (before - clusters.s2)[split]
    least = np.minimum.reduceat(part, starts)
    hits = np.flatnonzero(part == least[row])
    first = hits[np.searchsorted(hits, starts)]
    return least + clusters.s2[rows], split[first]


def _next_row(
    clusters: _Clusters, before: np.ndarray, used: int, lower: np.ndarray, only_last: bool
) -> tuple[np.ndarray, np.ndarray]:
    """From the best costs of `used` clusters to those of one more: (costs, splits), int64 [n + 1].

    Entries below `used` + 1 are not meaningful.

    Args:
        clusters: the data, n values.
        before: before[i], least cost of values[:i] in `used` clusters (int64 [n + 1]).
        used: number of clusters of `before`, 1 or more.
        lower: a lower bound of each row's split: the split found with one cluster fewer.
        only_last: compute the row i = n only.
    """
    size = len(clusters)
    costs, splits = before.copy(), lower.copy()
    if only_last:
        done = np.array([size])
        low = np.maximum(lower[done], used)
        costs[done], splits[done] = _best_splits(clusters, before, done, low, done - 1)
        return costs, splits
    # Rows base + stride, base + 3 stride, ... lie between rows already done; splits are monotone.
    base = used
    splits[base] = used
    stride = 1 << max(size - base, 1).bit_length()
    while stride > 1:
        stride //= 2
        rows = np.arange(base + stride, size + 1, 2 * stride)
        if not len(rows):
            continue
        above = rows + stride
        high = np.where(above <= size, splits[np.minimum(above, size)], size)
        low = np.maximum(np.maximum(splits[rows - stride], lower[rows]), used)
        high = np.minimum(high, rows - 1)
        costs[rows], splits[rows] = _best_splits(clusters, before, rows, low, high)
    return costs, splits


def _optimal_centroids(clusters: _Clusters, number: int, zero_first: bool) -> np.ndarray:
    """Centroids of the best partition of all values into `number` clusters, 1 <= number <= n."""
    size = len(clusters)
    before = clusters.first_costs(zero_first)
    history = []
    lower = np.zeros(size + 1, np.int64)
    for used in range(1, number):
        before, lower = _next_row(clusters, before, used, lower, used == number - 1)
        history.append(lower)
    bounds = [size]
    for splits in reversed(history):
        bounds.append(int(splits[bounds[-1]]))
    bounds.append(0)
    centroids = clusters.centroids(np.array(bounds[::-1]))
    if zero_first:
        centroids[0] = 0
    return centroids


def _fill(centroids: np.ndarray, number: int, top: int) -> np.ndarray:
    """Add unused integers of 0..top until there are `number`: each halves the widest gap.

    >>> _fill(np.array([0, 8]), 4, 15)
    array([ 0,  4,  8, 15])
    """
    values = centroids.tolist()
    # (minus the free integers in a gap, its lower end, its upper end); -1 and top + 1 are walls.
    walls = [-1, *values, top + 1]
    gaps = [(low - high + 1, low, high) for low, high in zip(walls, walls[1:], strict=False)]
    heapq.heapify(gaps)
    while len(values) < number:
        _, low, high = heapq.heappop(gaps)
        middle = top if high == top + 1 else (0 if low == -1 else (low + high) // 2)
        values.append(middle)
        for one, other in ((low, middle), (middle, high)):
            heapq.heappush(gaps, (one - other + 1, one, other))
    return np.array(sorted(values))


def exact_kmeans(
    histogram: np.ndarray, number: int, *, zero_first: bool | None = None
) -> np.ndarray:
    """The centroid table with the least total squared error: a global optimum.

    Dynamic programming over (clusters, values), divide and conquer over the monotone split points,
    every level of it vectorised: O(number * n log n) for n values that occur.

    Args:
        histogram: non-negative counts of the integers 0..len(histogram) - 1.
        number: table entries, at most len(histogram).
        zero_first: force the first centroid to 0; None: where more than half of the mass is at 0.

    Returns:
        int32 [number], strictly increasing integers of 0..len(histogram) - 1. Where fewer values
        than `number` occur, unused integers fill the widest gaps.

    Raises:
        UserError: an empty histogram, too many entries, or counts that int64 cannot hold exactly.

    >>> exact_kmeans(np.array([9, 0, 0, 1, 1, 0, 0, 0, 4]), 3)
    array([0, 4, 8], dtype=int32)
    """
    counts = np.asarray(histogram).astype(np.int64)
    if not 1 <= number <= len(counts):
        raise UserError(f"number of centroids must be 1..{len(counts)}, not {number}")
    if counts.min() < 0 or counts.max() == 0:
        raise UserError(
            "histogram must hold counts of 0 or more, some above 0, not an empty or negative one; "
            "give calibration images"
        )
    values = np.flatnonzero(counts)
    clusters = _Clusters(values, counts[values])
    if zero_first is None:
        zero_first = 2 * int(counts[0]) > sum(counts.tolist())
    if zero_first and counts[0] == 0:
        raise UserError("the value 0 must occur where the first centroid is to be 0")
    centroids = _optimal_centroids(clusters, min(number, len(values)), zero_first)
    return _fill(centroids, number, len(counts) - 1).astype(np.int32)


class _Partitions:
    """The best partitions of every beginning of rising values into up to `number` clusters."""

    def __init__(self, values: np.ndarray, counts: np.ndarray, number: int) -> None:
        size = len(values)
        # least cost of the first so many values by the number of clusters, float64
        self.costs = np.zeros((number + 1, size + 1))
        self.costs[0, 1:] = np.inf
        self._splits: list[np.ndarray] = []
        if not size:
            return
        clusters = _Clusters(values, counts)
        before, lower = clusters.first_costs(zero_first=False), np.zeros(size + 1, np.int64)
        self.costs[1:2] = before
        for used in range(1, min(number, size)):
            before, lower = _next_row(clusters, before, used, lower, only_last=False)
            self.costs[used + 1, used + 1 :] = before[used + 1 :]
            self._splits.append(lower)

    def bounds(self, number: int, size: int) -> list[int]:
        """Where clusters of the first `size` values begin and end."""
        found = [size]
        for splits in reversed(self._splits[: max(0, min(number, size) - 1)]):
            found.append(int(splits[found[-1]]))
        return [*found, 0]


def turning_table(values: np.ndarray, counts: np.ndarray, number: int) -> np.ndarray:
    """The table of least squared error where codes are segments of values that fall, then rise.

    One segment at most reaches across the least value. All others lie on one of two branches, of
    which every beginning (from the outer end inwards) has its best partitions as in `exact_kmeans`;
    so all segments are tried that can lie between two beginnings. One that costs more than a whole
    partition found before cannot, nor can any longer one.

    Args:
        values: integers.
        counts: how often each occurs, int64 above 0.
        number: table entries; where fewer segments do, the last ones are equal.

    Returns:
        int32 [number], in the order of the segments.

    >>> turning_table(np.array([0, -2, -3, -3, 0, 4]), np.ones(6, np.int64), 4)
    array([ 0, -3,  0,  4], dtype=int32)
    """
    turn = int(values.argmin())
    left, falling = _joined(values[:turn], counts[:turn])
    right, rising = _joined(values[turn:], counts[turn:])
    outer = _Partitions(left[:1] - left, falling, number)
    inner = _Partitions((right[-1] - right)[::-1], rising[::-1], number)
    low, size = int(values.min()), len(left) + len(right)
    joined, weights = np.concatenate([left, right]), np.concatenate([falling, rising])
    pieces = _Clusters(joined - low, weights, int(values.max()) - low)
    best, place = np.inf, (0, size, 0)
    for start in range(len(left), -1, -1):
        stops = np.arange(max(len(left), start + 1), size + 1)
        cost = pieces.costs(start, stops)
        stops, cost = stops[cost < best], cost[cost < best]
        if not len(stops):
            break
        # [clusters on the left, stop]
        beside = outer.costs[:number, start, None] + inner.costs[number - 1 :: -1, size - stops]
        total = beside.min(0) + cost
        least = int(total.argmin())
        if total[least] < best:
            best, place = total[least], (start, int(stops[least]), int(beside[:, least].argmin()))
    start, stop, used = place
    ends = (size - end for end in inner.bounds(number - 1 - used, size - stop))
    splits = np.array(sorted({*outer.bounds(used, start), start, stop, *ends}))
    table = pieces.centroids(splits) + low
    return np.pad(table, (0, number - len(table)), "edge").astype(np.int32)


def _joined(values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Equal neighbours as one, with the sum of their counts."""
    starts = np.flatnonzero(np.diff(values)) + 1
    starts = np.concatenate([[0], starts])[: len(values)].astype(np.int64)
    return values[starts], np.add.reduceat(counts, starts) if len(starts) else counts
