// SPDX-License-Identifier: Apache-2.0
// The processes that plan a layer for those that move data. control() reads the layer's record of
// the program, walks its passes (tile of PE output channels x chunk of input channels, tiles
// outside) and sends every process its own small descriptor and its tables; plan_* turn a pass into
// the rows that are read, computed and written, in a flat loop each. All run ahead of the data, and
// none multiplies: products of a layer's sizes are columns of the layer table.
#ifndef CONTROL_HPP
#define CONTROL_HPP

#include "fifo.hpp"
#include "program.hpp"
#include "work.hpp"

// Groups of G blocks that the blocks of an operation fill.
template <class C>
typename C::block_t groups_of(typename C::block_t blocks) {
#pragma HLS INLINE
  typename C::block_t groups = 1;
group_count:
  for (int n = C::G; n < C::PACK_PLANES; n += C::G) {
#pragma HLS UNROLL  // a comparison each
    if (blocks > n) groups++;
  }
  return groups;
}

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

// Which words are read, what becomes of them, and where their blocks go: a token for every row of
// every plane, to each of the three processes that they pass through.
template <class C>
void plan_reads(Fifo<ReadWork<C>>& work_in, Fifo<ReadPass<C>>& passes, Fifo<ReadJob<C>>& reads,
                Fifo<UnpackJob>& unpacks, Fifo<LineJob<C>>& lines) {
  typedef typename C::entry_t entry_t;
  typedef typename C::plane_t plane_t;
  const ReadWork<C> w = work_in.read();
#pragma HLS ARRAY_PARTITION variable = w.map complete          // registers
#pragma HLS ARRAY_PARTITION variable = w.chip complete         // registers
#pragma HLS ARRAY_PARTITION variable = w.bits complete         // registers
#pragma HLS ARRAY_PARTITION variable = w.place complete        // registers
#pragma HLS ARRAY_PARTITION variable = w.row_bytes complete    // registers
#pragma HLS ARRAY_PARTITION variable = w.plane_words complete  // registers
  const entry_t back = w.row_entries - w.ring_entries;         // to where the ring begins again
  const plane_t edge = w.planes - 1;                           // the map's last plane
  ReadPass<C> pass;
  Digit<typename C::block_t> block;
  Digit<Count<2>> source;
  Digit<typename C::y_t> y;
  Digit<Count<C::MAX_IMAGES>> image;
  source.start(w.sources);
  y.start(w.rows);
  image.start(w.images);
  addr_t image_at = 0, chip_at = 0;
  addr_t first_at[2] = {0, 0};                 // where an image's first row of a source begins
  addr_t row_at[2] = {0, 0};                   // and the row that is read
  Count<WORD_BYTES - 1> row_byte[2] = {0, 0};  // of the word row_at
  Count<(C::MAX_ROW_WORDS + 1) * WORD_BYTES> row_end[2] = {0, 0};  // byte behind the row's last
#pragma HLS ARRAY_PARTITION variable = first_at complete           // registers
#pragma HLS ARRAY_PARTITION variable = row_at complete             // registers
#pragma HLS ARRAY_PARTITION variable = row_byte complete           // registers
#pragma HLS ARRAY_PARTITION variable = row_end complete            // registers
  entry_t ring = 0;         // line buffer entry of the next row
  addr_t plane_at = 0;      // where the row of the next plane begins
  plane_t ahead = 0;        // number of the next plane
  plane_t first_ahead = 0;  // of the pass's second plane
  bool first = true;        // of a row's planes
  bool stay = false;        // a plane beyond the map's edge is replaced by the edge's
  bool first_stay = false;  // likewise, of the pass's first plane
  bool begin = true;
  cycle_t total = 0;
plan_read_block:
  for (bool end = false; !end;) {
#pragma HLS PIPELINE II = 1  // a token of each kind a cycle
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_BLOCKS
    bool image_begin = begin;
    if (begin) {
      pass = passes.read();
      block.start(pass.blocks);
      image_at = 0;
      chip_at = 0;
    first_row:
      for (int k = 0; k < 2; k++) {
#pragma HLS UNROLL  // registers
        const addr_t edge_words = w.clamp && pass.plane < 0 ? w.plane_words[k] : addr_t(0);
        first_at[k] = pass.offset[k] + edge_words;
      }
      first_stay = w.clamp && (pass.plane < 0 || pass.plane >= edge);
      first_ahead = pass.plane + 1;
      stay = first_stay;
      ahead = first_ahead;
      first = true;
      begin = false;
    } else {
      const Count<2> s = source.value;
      const bool last_plane = block.last && source.last;
      const addr_t at = first ? row_at[s] : plane_at;
      const Count<WORD_BYTES - 1> offset = row_byte[s];
      const Count<C::MAX_ROW_WORDS> words = (uint32_t(row_end[s]) + WORD_BYTES - 1) / WORD_BYTES;
      const bool cached = w.place[s] == PLACE_CACHE;
      const bool fetch = w.place[s] == PLACE_DDR || (cached && pass.fetch);
      const Count<C::MAX_ROW_WORDS> shared = cached && offset != 0 ? 1 : 0;
      const bool last = pass.last && last_plane && y.last && image.last;
      const ReadJob<C> read = {image_at + w.map[s] + at, chip_at + w.chip[s] + at,
                               fetch ? shared : words,   words,
                               cached && fetch,          last};
      reads.write(read);
      const bool repeat = w.repeat && s != 0;
      const UnpackJob unpack = {w.bits[s], offset, repeat, last};
      unpacks.write(unpack);
      const entry_t entry = ring + (s != 0 ? pass.second : typename C::block_t(0)) + block.value;
      const LineJob<C> line = {entry, last_plane};
      lines.write(line);
      plane_at = stay ? at : addr_t(at + w.plane_words[s]);
      const bool plane_end = block.step();
      stay = plane_end ? first_stay : w.clamp && (ahead < 0 || ahead >= edge);
      ahead = plane_end ? first_ahead : plane_t(ahead + 1);
      first = plane_end;
    next_row:
      for (int k = 0; k < 2; k++) {
#pragma HLS UNROLL  // registers
        if (plane_end && s == k && !repeat) {
          row_at[k] += row_end[k] / WORD_BYTES;
          row_byte[k] = row_end[k] % WORD_BYTES;
          row_end[k] = row_end[k] % WORD_BYTES + w.row_bytes[k];
        }
      }
      const bool row_done = source.step(plane_end);
      if (row_done) {
        const entry_t ahead = ring + w.row_entries, wrapped = ring + back;
        ring = wrapped < 0 ? ahead : wrapped;
      }
      image_begin = y.step(row_done);
      if (image_begin) {
        image_at += w.map_words;
        chip_at += w.chip_words;
      }
      begin = image.step(image_begin);
      end = last;
    }
    if (image_begin) {
    image_row:
      for (int k = 0; k < 2; k++) {
#pragma HLS UNROLL  // registers
        row_at[k] = first_at[k];
        row_byte[k] = 0;
        row_end[k] = w.row_bytes[k];
      }
    }
    total++;
  }
  (void)total;
}

// Which input rows are taken in while an output row is computed: those that the next one needs;
// during an image's last row those that no window needs and, where the line buffer has room for
// them, the first of the next image or of the next pass. Behind a pass whose sums wait come
// SUM_DISTANCE rows of nothing: the next pass reads what has left compute's pipeline.
template <class C>
void plan_rows(Fifo<RowWork<C>>& work_in, Fifo<RowJob<C>>& jobs) {
  typedef typename C::entry_t entry_t;
  typedef typename C::y_t y_t;
  const RowWork<C> w = work_in.read();
  const entry_t row_back = w.stride_entries - w.ring_entries;  // to where the ring begins again
  const entry_t image_back = w.image_entries - w.ring_entries;
  const bool ahead = w.is_conv && w.prefetch_next && !w.resident;  // of the next pass's rows
  const y_t first_reach = w.reach + w.stride_h;
  Digit<Count<C::MAX_PASSES>> chunk, pass;
  Digit<Count<C::MAX_IMAGES>> image;
  Digit<y_t> row;
  chunk.start(w.chunks);
  pass.start(w.passes);
  image.start(w.images);
  row.start(w.conv_height);
  entry_t image_entry = 0, entry = 0;  // line buffer entry of the image's row 0; of the window's
  y_t loaded = 0;                      // rows of the image in the ring, or on their way
  y_t y = 0;
  y_t reach = 0, reached = 0;  // behind the window of the next row; of the row, within the map
  typename C::channel_t channel = w.first_channel;
  bool reuse = false;                // the inputs are there already
  bool fill = true;                  // the image's first rows are not even on their way
  bool begin = true;                 // of an image
  Count<C::SUM_DISTANCE> apart = 0;  // rows of nothing before the next pass
  cycle_t total = 0;
plan_row:
  for (bool end = false; !end;) {
#pragma HLS PIPELINE II = 1  // a token a cycle
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_HEIGHT
    if (apart != 0) {
      const RowJob<C> nothing = {0, 0, 0, 0, false, false, false, false, false};
      jobs.write(nothing);
      apart--;
    } else if (begin) {
      if (fill && w.first_rows != 0) {
        const RowJob<C> job = {w.first_rows, 0, 0, 0, false, false, false, false, false};
        jobs.write(job);
      }
      loaded = reuse ? w.rows : w.first_rows;
      y = -w.pad_top;
      reach = first_reach + w.stride_h;
      reached = min_of(first_reach, w.rows);
      entry = image_entry - w.top_entries;
      begin = false;
    } else {
      const y_t target = max_of(loaded, row.last ? w.rows : reached);
      const bool next = row.last && (image.last ? ahead && !pass.last : w.prefetch_next && !reuse);
      y_t next_rows = 0;
      if (next) next_rows = w.first_rows;
      const RowJob<C> job = {y_t(target - loaded + next_rows),
                             y,
                             entry_t(entry - w.left_entries),
                             channel,
                             true,
                             chunk.value == 0,
                             chunk.last,
                             row.last && image.last,
                             row.last && image.last && pass.last};
      jobs.write(job);
      loaded = target;
      y += w.stride_h;
      reached = min_of(reach, w.rows);
      reach += w.stride_h;
      const entry_t row_ahead = entry + w.stride_entries, row_wrapped = entry + row_back;
      entry = row_wrapped < 0 ? row_ahead : row_wrapped;
      begin = row.step();
      const bool pass_end = image.step(begin);
      if (begin) {
        const entry_t image_ahead = image_entry + w.image_entries;
        const entry_t image_wrapped = image_entry + image_back;
        image_entry = image_wrapped < 0 ? image_ahead : image_wrapped;
      }
      if (pass_end) {
        reuse = w.resident;
        if (w.resident) image_entry = 0;
        if (!chunk.last) apart = C::SUM_DISTANCE;
        if (chunk.step()) channel += w.tile_channels;
      }
      fill = !next && !reuse;
      end = pass.step(pass_end);
    }
    total++;
  }
  (void)total;
}

// The list of taps of every pass, G a cycle of the multipliers; operations fill up each tap to
// whole groups, so that all lane groups are at the same tap. Where lanes are channels, a row for
// each column of a step, its taps the kernel's rows, filled up to WINDOW.
template <class C>
void plan_taps(Fifo<TapWork<C>>& work_in, Fifo<typename C::block_t>& pass_blocks,
               Fifo<TapRow<C>>& rows) {
  typedef typename C::block_t block_t;
  const TapWork<C> w = work_in.read();
  Digit<Count<C::MAX_PASSES>> pass;
  Digit<block_t> block, group;
  Digit<typename C::x_t> x;
  Digit<typename C::y_t> y;
  Digit<Count<C::WINDOW>> lane;
  pass.start(w.passes);
  x.start(w.kernel_w);
  y.start(w.depthwise ? typename C::y_t(1) : w.kernel_h);
  lane.start(w.depthwise ? C::WINDOW : C::G);
  typename C::entry_t column = 0, row = 0;  // of the tap
  typename C::x_t dx = 0;
  typename C::y_t dy = 0;
  bool exists = false, second = false;
  TapRow<C> taps;
clear_tap:
  for (int g = 0; g < C::WINDOW; g++) {
#pragma HLS UNROLL  // registers; those beyond G stay so but where lanes are channels
    taps.exists[g] = false;
  }
#pragma HLS ARRAY_PARTITION variable = taps.x complete       // registers: any lane group
#pragma HLS ARRAY_PARTITION variable = taps.y complete       // registers: any lane group
#pragma HLS ARRAY_PARTITION variable = taps.entry complete   // registers: any lane group
#pragma HLS ARRAY_PARTITION variable = taps.exists complete  // registers: any lane group
  bool begin = true;
  cycle_t total = 0;
plan_tap:
  for (bool end = false; !end;) {
#pragma HLS PIPELINE II = 1  // a tap a cycle, so a row of them in G cycles
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::TAP_ROWS
    if (begin) {
      const block_t count = pass_blocks.read();
      const block_t groups = w.is_conv ? block_t(1) : groups_of<C>(count);
      block_t blocks = count;
      if (!w.is_conv) blocks = int32_t(groups) * C::G << (w.sources - 1);
      if (w.depthwise) blocks = C::WINDOW;
      block.start(blocks);
      group.start(groups);
      column = 0;
      row = 0;
      dx = 0;
      dy = 0;
      exists = true;
      second = false;
      begin = false;
    } else {
      taps.x[lane.value] = dx;
      taps.y[lane.value] = dy;
      taps.entry[lane.value] = column + (w.depthwise ? row : typename C::entry_t(block.value));
      taps.exists[lane.value] = exists && (!w.depthwise || block.value < w.kernel_h);
      const bool carry_x = block.step(exists);
      const bool carry_y = x.step(carry_x);
      if (w.depthwise) {
        row = carry_x ? typename C::entry_t(0) : typename C::entry_t(row + w.row_entries);
        dy = carry_x ? typename C::y_t(0) : typename C::y_t(dy + w.dilation_h);
      }
      if (carry_y && !w.depthwise) {
        row += w.row_entries;
        column = row;
        dx = 0;
        dy += w.dilation_h;
      } else if (carry_x) {
        column += w.column_entries;
        dx += w.dilation_w;
      }
      exists = exists && !y.step(carry_y);
      if (lane.step()) {
        taps.group = group.value;
        taps.second = second;
        taps.pass_end = !exists;
        taps.layer_end = !exists && pass.last;
        rows.write(taps);
        const bool source_end = group.step();
        second = w.sources > 1 && (source_end ? !second : second);
        begin = !exists;
        end = pass.step(begin);
      }
    }
    total++;
  }
  (void)total;
}

// Which words are written where: whole words before and after each row of each plane, so that the
// last row also brings the incomplete word. Where other tiles' rows lie between the rows, all are
// whole words.
template <class C>
void plan_writes(Fifo<WriteWork<C>>& work_in, Fifo<TileJob<C>>& tiles, Fifo<WriteJob<C>>& jobs) {
  const WriteWork<C> w = work_in.read();
  Digit<Count<C::PACK_PLANES>> plane;
  Digit<Count<C::MAX_HEIGHT * C::MAX_WIDTH>> row;
  Digit<Count<C::MAX_IMAGES>> image;
  Digit<Count<C::MAX_PASSES>> tile;
  row.start(w.rows);
  image.start(w.images);
  tile.start(w.tiles);
  Count<C::MAX_ROW_WORDS> part = 0;  // words of every row, where all have as many
  addr_t image_at = 0, row_at = 0, plane_at = 0;
  addr_t done = 0;  // words before the row
  Count<(C::MAX_ROW_WORDS + 1) * WORD_BYTES> row_end =
      0;  // byte behind the row's last, from row_at
  bool begin = true;
  cycle_t total = 0;
plan_write_plane:
  for (bool end = false; !end;) {
#pragma HLS PIPELINE II = 1  // a token a cycle
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_HEIGHT
    bool image_begin = begin;
    if (begin) {
      const TileJob<C> job = tiles.read();
      plane.start(w.raw ? Count<C::PACK_PLANES>(1) : job.planes);
      part = w.parts ? w.part_words : Count<C::MAX_ROW_WORDS>(job.lanes);
      image_at = w.map + job.offset;
      begin = false;
    } else {
      const addr_t at = plane.value == 0 ? row_at : plane_at;
      const addr_t step = row_end / WORD_BYTES;
      const addr_t whole = row.last ? addr_t(w.plane_words - done) : step;
      const Count<C::MAX_ROW_WORDS> words = w.raw || w.parts ? int32_t(part) : int32_t(whole);
      const bool last = plane.last && row.last && image.last && tile.last;
      const WriteJob<C> job = {at, words, w.on_chip, last};
      if (words != 0 || last) jobs.write(job);
      plane_at = at + w.plane_words;
      const bool plane_end = plane.step();
      if (plane_end) {
        row_at += w.raw ? w.channels : step;
        done += step;
        row_end = row_end % WORD_BYTES + w.row_bytes;
      }
      image_begin = row.step(plane_end);
      if (image_begin) image_at += w.image_words;
      begin = image.step(image_begin);
      end = tile.step(begin);
    }
    if (image_begin) {
      row_at = image_at;
      done = 0;
      row_end = w.row_bytes;
    }
    total++;
  }
  (void)total;
}

#endif  // CONTROL_HPP
