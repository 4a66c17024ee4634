# SPDX-License-Identifier: Apache-2.0
"""What rules forbid but where it is listed here, each with the reason why it does no harm."""

# Loops with `PIPELINE off`, by label: what runs so rarely that small is better than fast.
SEQUENTIAL = {
    "tally_stage": "tally: eight counts, once a layer",
    "write_end": "write_words: the last four responses, once a layer",
    "add_counters": "accelerator: twelve counters, once a layer",
    "store_counters": "accelerator: twelve counters, once a call",
    "store_counter": "probe counter_registers: four counters, once a call",
}
# Static arrays of processes, by name: memories. None carries anything from layer to layer: a layer
# reads what it has written.
MEMORIES = {
    "low": "compute: line buffer, an entry is written by its row before a window reads it",
    "high": "compute: likewise, the other bits of wide codes",
    "partial": "compute: sums, written by a chunk of channels before the next one reads them",
    "weight": "compute: a half is written by a pass before the pass reads it",
    "tap": "compute: likewise",
    "factors": "finish: normalisation, loaded when such a layer begins",
    "rows": "max_pool: a row is taken in before a window reads it",
    "row": "pack_rows: a row is collected before its planes are packed",
    "table": "load_weights: a codebook, loaded when a layer with one begins",
    "cache": "probe region_cache: a call that fetches fills it",
}
# Arrays of which DEPENDENCE promises that so many steps lie between writing and reading, by name,
# with what keeps them apart.
PROMISES = {
    "partial": "plan_rows sends SUM_DISTANCE rows of nothing behind a pass whose sums wait",
    "sums": "probe wide_aggregate: the loop uses DISTANCE words in turn",
}
# Further arrays that a pipeline may address by what varies, by name: memories, with one access a
# port and cycle. Any other such array becomes registers.
ADDRESSED = {
    "memory": "probes copies, half_memory, static_state, wide_row: a read and a write in a cycle",
    "sums": "probe wide_aggregate: likewise",
}
# Memories with one port for reading and writing: never both in one cycle.
ONE_PORT = {
    "RECIPROCAL": "average: never written",
    "table": "load_weights, probe codebook: loaded before it is looked up",
}
