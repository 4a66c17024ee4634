// SPDX-License-Identifier: Apache-2.0
// The engine: one convolution engine, time-multiplexed over the layers of the table. A layer is a
// sequence of passes (tile of PE output channels x chunk of input channels); the processes of a
// pass run at the same time, and the weights of the next pass load while this one computes.
//
//   sequence -> load_weights ------------------.
//       `-----> read_words -> unpack_rows -> compute -> finish -> max_pool -> pack_rows ->
//       write_words
#ifndef ENGINE_HPP
#define ENGINE_HPP

#include "compute.hpp"
#include "fifo.hpp"
#include "finish.hpp"
#include "layer.hpp"
#include "packing.hpp"
#include "pooling.hpp"
#include "weight_loader.hpp"

// Elements that the streams between processes hold, in hardware and in simulation; all others hold
// 2, which is what a stream without a pragma has.
const int WORDS_DEPTH = 64;   // bus words
const int BLOCKS_DEPTH = 16;  // pixel blocks of 8 codes
const int SUMS_DEPTH = 16;    // groups of PIXELS pixels, an accumulator per output channel
const int PIXELS_DEPTH = 64;  // codes of a tile's output channels

// Totals of one call, in the order of enum Counter.
struct Counters {
  uint64_t value[COUNTERS];
};

// Cycles of a layer: passes overlap with the loading of the next pass's weights.
//   cycles = load(0) + sum over p of max(body(p), load(p+1))
struct CycleModel {
  uint32_t body;  // of the pass before
};

// Describes pass `index` of the layer, of `passes`. Tiles are the outer, chunks the inner loop.
template <class C>
void sequence(const LayerDesc& d, int32_t index, int32_t passes, int32_t images,
              Fifo<Pass>& to_load, Fifo<Pass>& to_read) {
  static int32_t tile, group, group_tile, chunk, address, skip_rows;
  if (index == 0) {
    tile = group = group_tile = chunk = skip_rows = 0;
    address = d.weight_addr;
  }
  Pass pass;
  const bool conv = d.op == OP_CONV;
  const int32_t start = chunk * d.chunk_blocks;  // first block of the chunk
  // Normalisation needs a plane of neighbours on either side of those it writes.
  const int32_t margin = d.op == OP_LRN ? 1 : 0;
  const int32_t tile_planes = C::PACK_PLANES - 2 * margin;
  const int32_t taps = d.kernel_h * d.kernel_w;
  pass.tile = tile;
  pass.first = chunk == 0;
  pass.last = chunk == d.chunks - 1;
  pass.out_plane = group * d.group_out_planes + group_tile * tile_planes;
  pass.planes = min_of(tile_planes, d.group_out_planes - group_tile * tile_planes);
  pass.blocks = conv ? min_of(d.blocks - start, d.chunk_blocks) : pass.planes + 2 * margin;
  pass.steps = conv ? (taps * pass.blocks + C::G - 1) / C::G
                    : taps * d.sources * ((pass.blocks + C::G - 1) / C::G);
  pass.first_block = conv ? group * d.blocks + start : pass.out_plane - margin;
  pass.weight_addr = address;
  pass.table_words = index == 0 ? d.weight_table : 0;
  pass.weight_words =
      conv ? pass.table_words + (pass.first ? C::BIAS_WORDS : 0) + pass.steps * d.row_words : 0;
  pass.images = images;
  pass.fetch = group_tile == 0;
  address += pass.weight_words;
  chunk = pass.last ? 0 : chunk + 1;
  if (pass.last) {
    const bool group_end = group_tile == d.tiles_per_group - 1;
    tile++;
    group = group_end ? group + 1 : group;
    group_tile = group_end ? 0 : group_tile + 1;
  }
  // A resident input is read by the first pass alone; else a pass takes in the next one's first
  // rows where the line buffer has room for them. The tiles of an operation read different planes.
  const bool ahead = conv && d.prefetch_next && !d.resident && index < passes - 1;
  const int32_t next_start = chunk * d.chunk_blocks;
  pass.skip_rows = skip_rows;
  pass.ahead_rows = ahead ? rows_needed(d, 0) : 0;
  pass.next_blocks = min_of(d.blocks - next_start, d.chunk_blocks);
  pass.next_block = group * d.blocks + next_start;
  pass.next_fetch = group_tile == 0;
  pass.input_parts = d.resident && index > 0 ? 0 : images + (pass.ahead_rows > 0 ? 1 : 0);
  skip_rows = pass.ahead_rows;
  to_load.write(pass);
  to_read.write(pass);
}

// Adds the counts of one pass to the totals.
template <class C>
void tally(const LayerDesc& d, int32_t index, Fifo<count_t>& load, Fifo<count_t>& read,
           Fifo<count_t>& fetched, Fifo<count_t>& unpack, Fifo<count_t>& compute,
           Fifo<count_t>& finish, Fifo<count_t>& pool, Fifo<count_t>& pack, Fifo<count_t>& write,
           CycleModel& model, Counters& counters) {
  uint32_t n[COUNTERS] = {0};
  n[COUNT_LOAD] = load.read();
  n[COUNT_READ] = read.read();
  n[COUNT_UNPACK] = unpack.read();
  n[COUNT_COMPUTE] = compute.read();
  n[COUNT_FINISH] = finish.read();
  n[COUNT_POOL] = pool.read();
  n[COUNT_PACK] = pack.read();
  n[COUNT_WRITE] = write.read();
  uint32_t body = 0;
tally_stage:
  for (int i = COUNT_LOAD; i < COUNTERS; i++) {
#pragma HLS PIPELINE off  // once per pass: small before fast
    counters.value[i] += n[i];
    if (i > COUNT_LOAD && n[i] > body) body = n[i];
  }
  const uint32_t before = index == 0 ? 0 : model.body;
  counters.value[COUNT_CYCLES] += n[COUNT_LOAD] > before ? n[COUNT_LOAD] : before;
  counters.value[COUNT_BYTES_WEIGHTS] += uint64_t(WORD_BYTES * C::WEIGHT_PORTS) * n[COUNT_LOAD];
  // Bytes are those of the DRAM; a word on chip takes its cycle, but no bus.
  counters.value[COUNT_BYTES_READ] += uint64_t(WORD_BYTES) * fetched.read();
  counters.value[COUNT_BYTES_WRITTEN] += d.out_chip ? 0 : uint64_t(WORD_BYTES) * n[COUNT_WRITE];
  model.body = body;
}

// Runs one layer on a batch of images. Of the two on-chip memories one is read (and, as a cache,
// written) by read_words alone, the other is written by write_words alone: within the dataflow
// region each array has one process, as Vitis HLS demands (UG1399, canonical dataflow).
// `weights`: one pointer per weight port.
template <class C, class... Ports>
void run_layer(const typename C::bus_t* fm_in, typename C::bus_t* fm_out,
               typename C::bus_t* chip_in, typename C::bus_t* chip_out, const LayerDesc& d,
               int32_t images, Counters& counters, Ports... weights) {
  CycleModel model = {0};
  const int32_t passes = d.conv_groups * d.tiles_per_group * d.chunks;
layer_pass:
  for (int32_t index = 0; index < passes; index++) {
#pragma HLS DATAFLOW  // processes of a pass overlap, and so do the passes
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_PASSES
    typename C::weight_t buffer[C::WEIGHT_ROWS][C::SIMD][C::PE];
#pragma HLS ARRAY_RESHAPE variable = buffer complete dim = 2  // a row is one memory word
#pragma HLS ARRAY_RESHAPE variable = buffer complete dim = 3  // a row is one memory word
    int32_t bias[C::PE];
#pragma HLS ARRAY_PARTITION variable = bias complete  // registers
    Stream<Pass, 2> to_load("to_load"), to_read("to_read"), to_unpack("to_unpack");
    Stream<Pass, 2> to_compute("to_compute"), to_finish("to_finish"), to_pool("to_pool");
    Stream<Pass, 2> to_pack("to_pack"), to_write("to_write");
    Stream<count_t, 2> n_load("n_load"), n_read("n_read"), n_unpack("n_unpack");
    Stream<count_t, 2> n_compute("n_compute"), n_finish("n_finish"), n_pool("n_pool");
    Stream<count_t, 2> n_pack("n_pack"), n_write("n_write"), n_fetched("n_fetched");
    Stream<typename C::bus_t, WORDS_DEPTH> words_in("words_in"), words_out("words_out");
#pragma HLS STREAM variable = words_in depth = WORDS_DEPTH   // the adapter holds whole bursts
#pragma HLS STREAM variable = words_out depth = WORDS_DEPTH  // the adapter holds whole bursts
    Stream<CodeBlock<C>, BLOCKS_DEPTH> blocks("blocks");
#pragma HLS STREAM variable = blocks depth = BLOCKS_DEPTH  // evens out rows that start in a word
    Stream<SumGroup<C>, SUMS_DEPTH> sums("sums");
#pragma HLS STREAM variable = sums depth = SUMS_DEPTH  // groups wait while a row is pooled, packed
    Stream<SumVector<C>, 2> raw("raw");                // one pixel a pass
    Stream<CodeVector<C>, PIXELS_DEPTH> codes("codes"), pooled("pooled");
#pragma HLS STREAM variable = codes depth = PIXELS_DEPTH   // pixels wait while a row is pooled
#pragma HLS STREAM variable = pooled depth = PIXELS_DEPTH  // pixels wait while a row is packed

    PROCESS(sequence<C>, d, index, passes, images, to_load, to_read);
    // Called: an array is handed on when it is whole, so what reads it begins after what writes it.
    load_weights<C>(d, to_load, buffer, bias, n_load, weights...);
    PROCESS(read_words<C>, fm_in, chip_in, d, to_read, to_unpack, words_in, n_read, n_fetched);
    PROCESS(unpack_rows<C>, d, to_unpack, to_compute, words_in, blocks, n_unpack);
    PROCESS(compute<C>, d, to_compute, to_finish, blocks, buffer, bias, sums, n_compute);
    PROCESS(finish<C>, d, to_finish, to_pool, sums, codes, raw, n_finish);
    PROCESS(max_pool<C>, d, to_pool, to_pack, codes, pooled, n_pool);
    PROCESS(pack_rows<C>, d, to_pack, to_write, pooled, raw, words_out, n_pack);
    PROCESS(write_words<C>, fm_out, chip_out, d, to_write, words_out, n_write);
    PROCESS(tally<C>, d, index, n_load, n_read, n_fetched, n_unpack, n_compute, n_finish, n_pool,
            n_pack, n_write, model, counters);
  }
  counters.value[COUNT_CYCLES] += model.body;
}

#endif  // ENGINE_HPP
