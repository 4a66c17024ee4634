// SPDX-License-Identifier: Apache-2.0
// control() reads the layer's record of the program, walks its passes (tile of PE output channels x
// chunk of input channels, tiles outside) and sends every process its own small descriptor and its
// tables. It runs ahead of the data and multiplies nothing: products of a layer's sizes are columns
// of the layer table.
#ifndef CONTROL_HPP
#define CONTROL_HPP

#include "fifo.hpp"
#include "planners.hpp"
#include "program.hpp"
#include "work.hpp"

// Hands on the tables behind a record's row: centroids to compute, all others to finish.
template <class C>
void send_tables(MemoryPort<C>& program, const LayerDesc& d, addr_t words,
                 Fifo<typename C::bus_t>& centroids, Fifo<typename C::bus_t>& finish_tables) {
#pragma HLS INLINE
  addr_t first = 0;  // words of centroids
  if (d.in_scheme == SCHEME_KNQ) first += KnqTable<C>::WORDS;
  if (d.in2_scheme == SCHEME_KNQ) first += KnqTable<C>::WORDS;
send_word:
  for (addr_t i = 0; i < words; i++) {
#pragma HLS PIPELINE II = 1  // a word a cycle
#pragma HLS LOOP_TRIPCOUNT min = 0 max = 2 * C::KNQ_LEVELS + LRN_WORDS
    const typename C::bus_t word = program.read();
    if (i < first) {
      centroids.write(word);
    } else {
      finish_tables.write(word);
    }
  }
}

template <class C>
void control(MemoryPort<C> program, const RecordPlace record, int32_t images,
             Fifo<LoadWork<C>>& to_load, Fifo<ReadWork<C>>& to_reads,
             Fifo<ReadPass<C>>& read_passes, Fifo<UnpackWork<C>>& to_unpack,
             Fifo<RowWork<C>>& to_rows, Fifo<TapWork<C>>& to_taps,
             Fifo<typename C::block_t>& tap_passes, Fifo<ComputeWork<C>>& to_compute,
             Fifo<typename C::bus_t>& centroids, Fifo<FinishWork<C>>& to_finish,
             Fifo<typename C::bus_t>& finish_tables, Fifo<PoolWork<C>>& to_pool,
             Fifo<PackWork<C>>& to_pack, Fifo<TileJob<C>>& pack_tiles,
             Fifo<WriteWork<C>>& to_writes, Fifo<TileJob<C>>& write_tiles) {
  program.read_request(record.address, record.words);
  const LayerDesc d = read_row<C>(program);
  const bool conv = d.op == OP_CONV;
  // Normalisation needs a plane of neighbours on either side of those it writes.
  const int margin = d.op == OP_LRN ? 2 : 0;
  const Count<C::MAX_PASSES> tiles = d.layer_tiles, passes = d.layer_passes;
  const LoadWork<C> load = {addr_t(d.weight_addr), count_t(d.layer_words), count_t(d.weight_table),
                            count_t(d.rows_words), count_t(d.last_words),  d.row_words,
                            d.weight_bits,         d.weight_table,         d.chunks,
                            d.bias_shift,          d.scaled != 0,          d.paired != 0};
  to_load.write(load);
  const ReadWork<C> read = {
      images,
      d.rows_used,
      d.sources,
      {d.in_row_bytes, d.in2_row_bytes},
      {addr_t(d.in_plane_words), addr_t(d.in2_plane_words)},
      {addr_t(d.in_addr), addr_t(d.in2_addr)},
      {addr_t(d.in_chip == PLACE_CACHE ? d.cache_addr : d.in_addr), addr_t(d.in2_addr)},
      {d.in_chip, d.in2_chip},
      {d.in_bits, d.in2_bits},
      addr_t(d.map_words),
      addr_t(d.chip_words),
      d.op == OP_LRN,
      d.in2_repeat != 0,
      d.group_out_planes,
      d.row_entries,
      d.ring_entries};
  to_reads.write(read);
  const UnpackWork<C> unpack = {d.in_width};
  to_unpack.write(unpack);
  const RowWork<C> rows = {images,
                           d.rows_used,
                           d.conv_height,
                           d.prefetch_next != 0,
                           d.resident != 0,
                           conv,
                           passes,
                           d.chunks,
                           d.stride_h,
                           d.pad_top,
                           d.first_rows,
                           d.reach,
                           d.row_entries,
                           d.ring_entries,
                           d.stride_entries,
                           d.image_entries,
                           d.top_entries,
                           d.left_entries,
                           -margin / 2 * BLOCK_CODES,
                           d.tile_planes * BLOCK_CODES};
  to_rows.write(rows);
  // Where lanes are channels, a step is a column of the input.
  const bool depthwise = C::KERNEL_ROWS > 0 && d.depthwise != 0;
  const TapWork<C> taps = {conv,
                           depthwise,
                           d.sources,
                           d.kernel_h,
                           d.dilation_h,
                           depthwise ? d.stride_w : d.kernel_w,
                           depthwise ? 1 : d.dilation_w,
                           depthwise ? d.chunk_blocks : d.tap_column_entries,
                           d.tap_row_entries,
                           passes};
  to_taps.write(taps);
  const ComputeWork<C> compute = {
      conv,
      C::CODE_BITS > C::LINE_LOW_BITS && max_of(d.in_bits, d.in2_bits) > C::LINE_LOW_BITS,
      d.paired != 0,
      depthwise,
      d.chunks,
      d.columns,
      d.lead,
      d.in_width,
      d.stride_w,
      d.pad_left,
      d.in_height,
      d.chunk_blocks,
      d.ring_entries,
      d.pixel_entries,
      {d.in_align, C::HAS_PRODUCT && d.op == OP_PRODUCT ? C::VALUE_BITS : d.in2_align},
      d.out_channels,
      {{d.in_scheme, d.in_shift, d.in_half, d.in_bits, d.in_signed != 0},
       {d.in2_scheme, d.in2_shift, d.in2_half, d.in2_bits, d.in2_signed != 0}}};
  to_compute.write(compute);
  const FinishWork<C> finish = {
      d.raw != 0,
      d.scaled != 0,
      d.exclude_pad != 0,
      d.op == OP_LRN || d.op == OP_PRODUCT || d.reciprocal != 0 || d.exclude_pad != 0,
      depthwise,
      d.op,
      d.finish_steps,
      tiles,
      images,
      d.conv_height,
      d.stride_h,
      d.pad_top,
      d.kernel_h,
      d.in_height,
      d.conv_width,
      d.stride_w,
      d.pad_left,
      d.kernel_w,
      d.in_width,
      d.requant_shift,
      typename C::quant_t(d.y_min),
      typename C::quant_t(d.y_max),
      d.reciprocal,
      d.lrn_size,
      {d.out_scheme, d.out_shift, d.out_half, d.out_bits, d.out_signed != 0}};
  to_finish.write(finish);
  const PoolWork<C> pool = {
      d.raw != 0,      d.pool_h > 1 || d.pool_w > 1 || d.pool_stride_h > 1 || d.pool_stride_w > 1,
      tiles,           images,
      d.conv_height,   d.out_height,
      d.pool_h,        d.pool_stride_h,
      d.pool_pad_top,  d.conv_width,
      d.out_width,     d.pool_w,
      d.pool_stride_w, d.pool_pad_left};
  to_pool.write(pool);
  const PackWork<C> pack = {d.raw != 0,  d.apart != 0, tiles,      images,    d.out_height,
                            d.out_width, d.out_bits,   d.places_h, d.places_w};
  to_pack.write(pack);
  const WriteWork<C> write = {d.raw != 0,
                              d.out_chip != 0,
                              d.part_words != 0,
                              tiles,
                              images,
                              d.write_rows,
                              d.out_row_bytes,
                              d.part_words,
                              addr_t(d.part_words != 0 ? d.part_words : d.out_channels),
                              addr_t(d.out_addr),
                              addr_t(d.out_plane_words),
                              addr_t(d.out_words)};
  to_writes.write(write);
  send_tables<C>(program, d, record.words - ROW_COLUMN_WORDS, centroids, finish_tables);

  Digit<Count<C::MAX_PASSES>> chunk, tile, pass;
  chunk.start(d.chunks);
  tile.start(d.tiles_per_group);
  pass.start(passes);
  addr_t group_at = 0, read_at = 0, read2_at = 0, out_at = 0;
  typename C::plane_t plane = 0;
  typename C::channel_t channels = d.out_channels;
  const typename C::channel_t lanes = d.tile_planes * BLOCK_CODES;
  if (!conv) {
    read_at = group_at = addr_t(d.group_words);  // the neighbours in front of the first plane
    plane = -margin / 2;
  }
control_pass:
  for (bool end = false; !end;) {
#pragma HLS PIPELINE II = 1  // a token of each kind a cycle
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_PASSES
    const bool tile_end = tile.last, last = chunk.last;
    const typename C::block_t planes = tile_end ? d.last_planes : d.tile_planes;
    const typename C::block_t blocks =
        conv ? (last ? d.last_blocks : d.chunk_blocks) : int32_t(planes) + margin;
    if (pass.value == 0 || !d.resident) {
      const typename C::block_t second = conv ? 0 : int32_t(groups_of<C>(blocks)) * C::G;
      const ReadPass<C> inputs = {{read_at, read2_at},    plane, blocks, second, tile.value == 0,
                                  pass.last || d.resident};
      read_passes.write(inputs);
    }
    tap_passes.write(blocks);
    if (last) {
      const TileJob<C> job = {out_at, planes, channels < lanes ? channels : lanes};
      pack_tiles.write(job);
      write_tiles.write(job);
      out_at += tile_end ? d.last_tile_words : d.tile_words;
      channels -= lanes;
    }
    if (conv) {
      if (last && tile_end) group_at += d.group_words;
      read_at = last ? group_at : addr_t(read_at + d.chunk_words);
    } else {
      read_at += d.chunk_words;
      read2_at += d.chunk2_words;
      plane += d.tile_planes;
    }
    if (chunk.step()) tile.step();
    end = pass.step();
  }
}

#endif  // CONTROL_HPP
