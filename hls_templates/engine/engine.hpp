// SPDX-License-Identifier: Apache-2.0
// The engine: one convolution engine, time-multiplexed over the layers of the table. A layer is one
// call of the dataflow region: its processes run at the same time, each one loop over the whole
// layer, connected by streams alone.
//
//   control -> (plan_reads, plan_rows, plan_taps, plan_writes, and a descriptor for each; tables)
//   load_weights ----------------------.---------.
//   read_words -> unpack_rows -> compute -> finish -> max_pool -> pack_rows -> write_words
#ifndef ENGINE_HPP
#define ENGINE_HPP

#include "compute.hpp"
#include "control.hpp"
#include "fifo.hpp"
#include "finish.hpp"
#include "memory.hpp"
#include "packing.hpp"
#include "planners.hpp"
#include "pooling.hpp"
#include "weight_loader.hpp"

// Elements that the streams between processes hold, in hardware and in simulation; all others hold
// 2, which is what a stream without a pragma has.
const int JOBS_DEPTH = 16;     // tokens of the planning processes
const int WORDS_DEPTH = 64;    // bus words
const int BLOCKS_DEPTH = 128;  // pixel blocks of 8 codes: they gather while a row is computed
const int SUMS_DEPTH = 16;     // groups of PIXELS pixels, an accumulator per output channel
const int PIXELS_DEPTH = 64;   // codes of a tile's output channels

// Totals of one layer, in the order of enum Counter.
struct Counters {
  uint64_t value[COUNTERS];
};

// Adds up what the processes have counted.
template <class C>
void tally(Fifo<count_t>& load, Fifo<count_t>& read, Fifo<count_t>& fetched, Fifo<count_t>& unpack,
           Fifo<count_t>& compute, Fifo<count_t>& finish, Fifo<count_t>& pool, Fifo<count_t>& pack,
           Fifo<count_t>& write, Fifo<count_t>& stored, uint64_t counters[COUNTERS]) {
  const count_t n[COUNTERS - COUNT_LOAD] = {load.read(),    read.read(),   unpack.read(),
                                            compute.read(), finish.read(), pool.read(),
                                            pack.read(),    write.read()};
  const count_t from_ddr = fetched.read(), to_ddr = stored.read();
  count_t most = 0;
tally_stage:
  for (int i = 0; i < COUNTERS - COUNT_LOAD; i++) {
#pragma HLS PIPELINE off  // once per layer: small before fast
    counters[COUNT_LOAD + i] = n[i];
    if (n[i] > most) most = n[i];
  }
  counters[COUNT_CYCLES] = region_cycles(most);
  // Bytes are those of the DRAM; a word on chip takes its cycle, but no bus.
  counters[COUNT_BYTES_WEIGHTS] = uint64_t(WORD_BYTES * C::WEIGHT_PORTS) * uint64_t(n[0]);
  counters[COUNT_BYTES_READ] = uint64_t(WORD_BYTES) * uint64_t(from_ddr);
  counters[COUNT_BYTES_WRITTEN] = uint64_t(WORD_BYTES) * uint64_t(to_ddr);
}

// Runs one layer on a batch of images. Of the two on-chip memories one is read (and, as a cache,
// written) by read_words alone, the other is written by write_words alone: within the dataflow
// region each array has one process, as Vitis HLS demands (UG1399, canonical dataflow).
// `weights`: the weight ports.
template <class C, class... Ports>
void layer_region(MemoryPort<C> program, MemoryPort<C> fm_in, MemoryPort<C> fm_out,
                  typename C::bus_t* chip_in, typename C::bus_t* chip_out, const RecordPlace record,
                  int32_t images, uint64_t counters[COUNTERS], Ports... weights) {
#pragma HLS DATAFLOW  // the processes run at the same time
  Stream<LoadWork<C>, 2> to_load("to_load");
  Stream<ReadWork<C>, 2> to_reads("to_reads");
  Stream<ReadPass<C>, 2> read_passes("read_passes");
  Stream<UnpackWork<C>, 2> to_unpack("to_unpack");
  Stream<RowWork<C>, 2> to_rows("to_rows");
  Stream<TapWork<C>, 2> to_taps("to_taps");
  Stream<typename C::block_t, 2> tap_passes("tap_passes");
  Stream<ComputeWork<C>, 2> to_compute("to_compute");
  Stream<FinishWork<C>, 2> to_finish("to_finish");
  Stream<typename C::bus_t, 2> centroids("centroids"), finish_tables("finish_tables");
  Stream<PoolWork<C>, 2> to_pool("to_pool");
  Stream<PackWork<C>, 2> to_pack("to_pack");
  Stream<TileJob<C>, JOBS_DEPTH> pack_tiles("pack_tiles"), write_tiles("write_tiles");
#pragma HLS STREAM variable = pack_tiles depth = JOBS_DEPTH   // the planning processes run ahead
#pragma HLS STREAM variable = write_tiles depth = JOBS_DEPTH  // likewise
  Stream<WriteWork<C>, 2> to_writes("to_writes");
  Stream<ReadJob<C>, JOBS_DEPTH> reads("reads");
#pragma HLS STREAM variable = reads depth = JOBS_DEPTH  // likewise
  Stream<UnpackJob, JOBS_DEPTH> unpacks("unpacks");
#pragma HLS STREAM variable = unpacks depth = JOBS_DEPTH  // likewise
  Stream<LineJob<C>, JOBS_DEPTH> lines("lines");
#pragma HLS STREAM variable = lines depth = JOBS_DEPTH  // likewise
  Stream<RowJob<C>, JOBS_DEPTH> rows("rows");
#pragma HLS STREAM variable = rows depth = JOBS_DEPTH  // likewise
  Stream<WriteJob<C>, JOBS_DEPTH> writes("writes");
#pragma HLS STREAM variable = writes depth = JOBS_DEPTH  // likewise
  Stream<TapRow<C>, 2> taps("taps");
  Stream<WeightRow<C>, 2> weight_rows("weight_rows");
  Stream<BiasTile<C>, 2> biases("biases");
  Stream<ScaleTile<C>, 2> scales("scales");
  Stream<typename C::bus_t, WORDS_DEPTH> words_in("words_in"), words_out("words_out");
#pragma HLS STREAM variable = words_in depth = WORDS_DEPTH   // the adapter holds whole bursts
#pragma HLS STREAM variable = words_out depth = WORDS_DEPTH  // the adapter holds whole bursts
  Stream<CodeBlock<C>, BLOCKS_DEPTH> blocks("blocks");
#pragma HLS STREAM variable = blocks depth = BLOCKS_DEPTH  // evens out rows that start in a word
  Stream<SumGroup<C>, SUMS_DEPTH> sums("sums");
#pragma HLS STREAM variable = sums depth = SUMS_DEPTH  // groups wait while a row is pooled, packed
  Stream<SumVector<C>, 2> raw("raw");
  Stream<CodeVector<C>, PIXELS_DEPTH> codes("codes"), pooled("pooled");
#pragma HLS STREAM variable = codes depth = PIXELS_DEPTH   // pixels wait while a row is pooled
#pragma HLS STREAM variable = pooled depth = PIXELS_DEPTH  // pixels wait while a row is packed
  Stream<count_t, 2> n_load("n_load"), n_read("n_read"), n_fetched("n_fetched");
  Stream<count_t, 2> n_unpack("n_unpack"), n_compute("n_compute"), n_finish("n_finish");
  Stream<count_t, 2> n_pool("n_pool"), n_pack("n_pack"), n_write("n_write"), n_stored("n_stored");

  PROCESS(control<C>, program, record, images, to_load, to_reads, read_passes, to_unpack, to_rows,
          to_taps, tap_passes, to_compute, centroids, to_finish, finish_tables, to_pool, to_pack,
          pack_tiles, to_writes, write_tiles);
  PROCESS(plan_reads<C>, to_reads, read_passes, reads, unpacks, lines);
  PROCESS(plan_rows<C>, to_rows, rows);
  PROCESS(plan_taps<C>, to_taps, tap_passes, taps);
  PROCESS(plan_writes<C>, to_writes, write_tiles, writes);
  PROCESS(load_weights<C>, to_load, weight_rows, biases, scales, n_load, weights...);
  PROCESS(read_words<C>, fm_in, chip_in, reads, words_in, n_read, n_fetched);
  PROCESS(unpack_rows<C>, to_unpack, unpacks, words_in, blocks, n_unpack);
  PROCESS(compute<C>, to_compute, centroids, rows, lines, blocks, taps, weight_rows, biases, sums,
          n_compute);
  PROCESS(finish<C>, to_finish, finish_tables, scales, sums, codes, raw, n_finish);
  PROCESS(max_pool<C>, to_pool, codes, pooled, n_pool);
  PROCESS(pack_rows<C>, to_pack, pack_tiles, pooled, raw, words_out, n_pack);
  PROCESS(write_words<C>, fm_out, chip_out, writes, words_out, n_write, n_stored);
  PROCESS(tally<C>, n_load, n_read, n_fetched, n_unpack, n_compute, n_finish, n_pool, n_pack,
          n_write, n_stored, counters);
}

#endif  // ENGINE_HPP
