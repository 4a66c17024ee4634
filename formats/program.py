# SPDX-License-Identifier: Apache-2.0
"""program.bin: what a network is to an engine, beside its weights (docs/formats.md section 5).

A header names the engine and the network, an index has an entry a layer, and a record a layer has
its row of the layer table and its tables. The engine reads it as it runs. Imports numpy only.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nuq.formats.errors import UserError, call, existing
from nuq.formats.packing import WORD_BYTES

PROGRAM = "program.bin"
MAGIC = 0x5051554E  # "NUQP" as bytes
VERSION = 1
HEADER_WORDS = 4
INDEX_WORDS = 2  # of a layer: where its record is; the CRC-32 of that word and of the record
HEADER_FIELDS = ("magic", "version", "engine_id", "network_id", "layers", "words", "columns", "crc")


@dataclass(frozen=True)
class Record:
    """One layer."""

    row: Sequence[int]  # int32 columns of the layer table
    tables: Sequence[np.ndarray] = ()  # int32, in the order of docs/formats.md
    swap: bool = False  # the layer reads on-chip memory B and writes A, not the other way round

    @property
    def words(self) -> np.ndarray:
        """uint64 [n]: row and tables, each filled up to whole words.

        >>> Record((1, -1, 2)).words.tolist() == [0xFFFFFFFF00000001, 2]
        True
        """
        row = np.asarray(self.row, dtype="<i4")
        return np.concatenate([_words(part) for part in (row, *self.tables)])


def _crc(values: np.ndarray, before: int = 0) -> int:
    return zlib.crc32(values.tobytes(), before)


def _words(values: np.ndarray) -> np.ndarray:
    """Integers as int32 in uint64, two a word, the first in the lower half."""
    return np.append(values.astype("<i4"), np.zeros(values.size % 2, "<i4")).view("<u8")


@dataclass(frozen=True)
class Program:
    """A program as it is stored."""

    words: np.ndarray  # uint64, all of it

    @classmethod
    def of(cls, engine_id: int, network_id: int, records: Sequence[Record]) -> "Program":
        """The program of a network's layers in execution order."""
        parts = [record.words for record in records]
        at = HEADER_WORDS + INDEX_WORDS * len(records)
        index = []
        for record, part in zip(records, parts, strict=True):
            entry = np.array([at, 2 * part.size + record.swap], "<u4")
            index += [*entry, _crc(part, _crc(entry)), 0]
            at += part.size
        head = [MAGIC, VERSION, engine_id, network_id, len(records), at, len(records[0].row)]
        front = np.array([*head, _crc(np.array(head, "<u4")), *index], "<u4").view("<u8")
        return cls(np.concatenate([front, *parts]))

    def header(self, name: str) -> int:
        """A field of HEADER_FIELDS."""
        return int(self.words[:HEADER_WORDS].view("<u4")[HEADER_FIELDS.index(name)])

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return self.header("layers")

    def entry(self, layer: int) -> np.ndarray:
        """The index of a layer, uint32 [4]: address, 2 * words + swap, CRC-32, 0."""
        return self.words[HEADER_WORDS + INDEX_WORDS * layer :][:INDEX_WORDS].view("<u4")

    def record(self, layer: int) -> np.ndarray:
        """The words of a layer's record, uint64 [n]."""
        address, size, _, _ = self.entry(layer).tolist()
        return self.words[address : address + (size >> 1)]

    def fault(self) -> int | None:
        """The first layer whose record or index has changed, -1 for the header; None for none."""
        head = self.words[:HEADER_WORDS].view("<u4")
        changed = self.header("crc") != _crc(head[:-1])
        if changed or self.header("words") != self.words.size:
            return -1
        for layer in range(self.layers):
            entry, record = self.entry(layer), self.record(layer)
            if [_crc(record, _crc(entry[:2])), 0] != entry[2:].tolist():
                return layer
        return None


def read_program(folder: Path) -> Program:
    """program.bin of a folder; UserError where it is none of this version, or has changed."""
    path = existing(folder / PROGRAM, f"run {call('codegen')} first")
    data = path.read_bytes()
    if len(data) % WORD_BYTES or len(data) < WORD_BYTES * HEADER_WORDS:
        raise UserError(f"{path} must be whole words of {WORD_BYTES} bytes; run {call('codegen')}")
    program = Program(np.frombuffer(data, "<u8"))
    if (program.header("magic"), program.header("version")) != (MAGIC, VERSION):
        raise UserError(
            f"{path} must be a program of version {VERSION}; run {call('codegen')} again"
        )
    fault = program.fault()
    if fault is not None:
        where = "its header" if fault < 0 else f"layer {fault}"
        raise UserError(f"{path} must be unchanged since it was made, but {where} differs")
    return program
