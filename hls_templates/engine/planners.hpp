// SPDX-License-Identifier: Apache-2.0
// The processes that plan a layer for those that move data: they turn each pass into the rows that
// are read, computed and written, in a flat loop each. They run ahead of the data, and none
// multiplies: products of a layer's sizes are columns of the layer table.
#ifndef PLANNERS_HPP
#define PLANNERS_HPP

#include "fifo.hpp"
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

#endif  // PLANNERS_HPP
