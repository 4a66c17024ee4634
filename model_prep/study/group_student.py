# SPDX-License-Identifier: Apache-2.0
"""The quantized network with a table for each group of channels, trainable on any device.

It computes and learns as `quantize.student` does, with all tables in one tensor.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from nuq.formats.network import InputFormat
from nuq.formats.quantizer import Quantizer
from nuq.model_prep.graph import Graph
from nuq.model_prep.quantize.plan import LayerPlan
from nuq.model_prep.quantize.quantizers.codebook import table_quantizer
from nuq.model_prep.quantize.student import Student
from nuq.model_prep.study.tables import Tabled

_SPREAD = 4096  # places for values without a gradient of their own


class Tables:
    """The quantizers of all groups as tensors on a device, trainable together.

    A table's latent is in units of its own RMS, so that one rate suits all of them, as in
    `refine.distil`.
    """

    def __init__(self, tabled: Tabled, device: torch.device) -> None:
        self.quantizers, self.qm = tabled.quantizers, tabled.quantizers[0].qm
        self.size = 1 << self.qm
        tables = [np.asarray(one.centroid, np.float64) for one in self.quantizers]
        lengths = np.array([len(one) for one in tables])
        self._most = int(lengths.max())
        self.first = torch.tensor(np.cumsum(lengths) - lengths, device=device)
        self._lengths = torch.tensor(lengths, device=device)
        self._low = torch.tensor([one.y_min for one in self.quantizers], device=device)
        self._zero = torch.tensor([table[0] == 0 for table in tables], device=device)
        scales = [max(1.0, float(np.sqrt(np.square(table).mean()))) for table in tables]
        self.unit = torch.tensor(np.repeat(scales, lengths), device=device)  # float64
        self._steps = torch.tensor(
            [2.0**-one.frac for one in self.quantizers], dtype=torch.float64, device=device
        )
        flat = np.concatenate(tables) / np.repeat(scales, lengths)
        self.latent = torch.tensor(flat.astype(np.float32), device=device).requires_grad_()
        # of a latent's gradient to units of y
        self.slope = (self.unit * self._steps.repeat_interleave(self._lengths)).float()
        place = torch.arange(self._most, device=device)
        self._inside = place < self._lengths[:, None]  # bool [G, most]
        self._place = place.expand(len(tables), -1)
        self._made: tuple[torch.Tensor, dict[str, torch.Tensor]] | None = None

    def centroids(self) -> torch.Tensor:
        """Strictly rising integers int64 [G, most]; entries behind a table's end continue it."""
        padded = torch.zeros(self._inside.shape, dtype=torch.float64, device=self.latent.device)
        padded[self._inside] = self.latent.detach().double() * self.unit
        padded[:, 0] = torch.where(self._zero, 0.0, padded[:, 0])
        place, last = self._place, self._lengths[:, None] - 1
        low = self._low[:, None]
        table = torch.where(self._inside, padded.round().long() - place, low)
        table = table.cummax(1).values + place
        high = low + self.size - 1
        table = torch.minimum(table, high - (last - place))
        return torch.maximum(table, low + place)

    def made(self) -> dict[str, torch.Tensor]:
        """What `_Staircase` reads, of the latent as it stands."""
        now = self.latent.detach()
        if self._made is not None and torch.equal(now, self._made[0]):
            return self._made[1]
        table, low = self.centroids(), self._low[:, None]
        bounds = (table[:, :-1] + table[:, 1:] + 1) >> 1  # rule nearest
        bounds = torch.where(self._inside[:, 1:], bounds, low + 2 * self.size)
        y = (low + torch.arange(self.size, device=now.device)).contiguous()
        codes = torch.searchsorted(bounds.contiguous(), y, right=True)  # [G, 2^qm]
        values = table.gather(1, codes) * self._steps[:, None]
        ends = (self._lengths - 1)[:, None]
        top, below = table.gather(1, ends)[:, 0], table.gather(1, ends - 1)[:, 0]
        bottom, above = table[:, 0], table[:, 1]
        entry = codes + self.first[:, None]
        # the many zeros behind a ReLU stay exact, so their entry has no gradient
        entry = torch.where(self._zero[:, None] & (codes == 0), -1, entry)
        made = {
            "values": values.float().flatten(), "entry": entry.flatten(),
            "lowest": (bottom - (above - bottom + 1) // 2).maximum(self._low),
            "highest": (top + (top - below + 1) // 2).minimum(self._low + self.size - 1),
        }  # fmt: skip
        self._made = now.clone(), made
        return made


class _Staircase(torch.autograd.Function):
    """`student._Staircase` with a table for each channel."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, latent: torch.Tensor, tables: Tables, layer: "_Layer"
    ) -> torch.Tensor:
        made, group = tables.made(), layer.group
        y = torch.add(layer.half, x, alpha=2.0**layer.frac).floor_()
        lowest, highest = (made[end][group][:, None, None] for end in ("lowest", "highest"))
        ctx.inside = (y >= lowest) & (y <= highest)
        index = y.sub_(layer.low).clamp_(0, tables.size - 1).to(torch.int32)
        index += (group << tables.qm).to(torch.int32)[:, None, None]
        ctx.save_for_backward(index)
        ctx.tables, ctx.entry = tables, made["entry"]
        return made["values"][index]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (index,) = ctx.saved_tensors
        tables, to_latent = ctx.tables, None
        if ctx.needs_input_grad[1]:
            number = len(tables.latent)
            entry = ctx.entry[index].permute(0, 2, 3, 1).flatten()
            # those without gradient go to a row of places behind, lest all of them add to one
            spread = number + (torch.arange(len(entry), device=entry.device) % _SPREAD)
            entry = torch.where(entry < 0, spread, entry)
            sums = torch.zeros(number + _SPREAD, device=entry.device)
            sums.index_add_(0, entry, grads[0].permute(0, 2, 3, 1).flatten())
            to_latent = sums[:number] * tables.slope
        return grads[0] * ctx.inside, to_latent, None, None


class _Layer:
    """One layer's activations: the table of each of its channels."""

    def __init__(self, tables: Tables, group: np.ndarray, quantizer: Quantizer) -> None:
        device = tables.latent.device
        self.tables, self.frac, self.low = tables, quantizer.frac, quantizer.y_min
        self.group = torch.tensor(group, device=device)
        self.half = torch.tensor(0.5, device=device)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Quantized and decoded float32 activations [N, C, H, W]."""
        return _Staircase.apply(x, self.tables.latent, self.tables, self)  # type: ignore[no-any-return,no-untyped-call]


class GroupStudent(Student):
    """The quantized network with a table for each group of channels, on any device."""

    def __init__(
        self, graph: Graph, source: InputFormat, plans: Sequence[LayerPlan],
        tabled: Tabled | None, device: torch.device,
    ) -> None:  # fmt: skip
        """Start from the float network; None leaves the activations float, too."""
        super().__init__(graph, source, plans, {}, rounded=False)
        self.device = device
        for store in (self.weights, self.biases):
            for name, one in store.items():
                moved = one.detach().to(device, memory_format=torch.preserve_format)
                store[name] = moved.requires_grad_(one.requires_grad)
        self.tables = None if tabled is None else Tables(tabled, device)
        if tabled is not None and self.tables is not None:
            for layer in graph.stored:
                group = np.zeros(layer.out_shape[0], np.int64)
                for number, members in enumerate(tabled.groups):
                    if layer.name in members.channels:
                        group[members.channels[layer.name]] = number
                own = tabled.quantizers[int(group[0])]
                self.coders[layer.name] = _Layer(self.tables, group, own)  # type: ignore[assignment]

    def teacher(self) -> Student:
        """See `Student`; on the same device."""
        return GroupStudent(self.graph, self.source, list(self.plans.values()), None, self.device)

    def parameters(self) -> list[torch.Tensor]:
        """All that can be trained: weights, biases, the tables as one."""
        every = [*self.weights.values(), *self.biases.values()]
        latent = [] if self.tables is None else [self.tables.latent]
        return [*(one for one in every if one.requires_grad), *latent]

    def inputs(self, pixels: np.ndarray) -> torch.Tensor:
        """See `fake_quant.quantized_input`; on the device."""
        return super().inputs(pixels).to(self.device)

    def trained(self) -> Graph:
        """The graph with the weights and biases as they stand."""
        layers = [
            replace(
                layer, weight=self.weights[layer.name].detach().cpu().numpy(),
                bias=self.biases[layer.name].detach().cpu().numpy(),
            ) if layer.has_weights else layer
            for layer in self.graph.layers
        ]  # fmt: skip
        graph = self.graph
        return Graph(graph.name, graph.in_shape, layers, dict(graph.concats), graph.heads)

    def tabled(self, before: Tabled) -> Tabled:
        """The groups with their tables as they stand."""
        assert self.tables is not None
        rows = self.tables.centroids().cpu().numpy()
        made = [
            table_quantizer(row[: 1 << one.bits], one.qm, one.frac, one.signed, str(one.rule))
            for row, one in zip(rows, before.quantizers, strict=True)
        ]
        return replace(before, quantizers=made)
