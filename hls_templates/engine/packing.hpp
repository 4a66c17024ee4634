// SPDX-License-Identifier: Apache-2.0
// Gearboxes between 64-bit bus words and pixel blocks of 8 codes of T bits = T bytes
// (docs/formats.md, section 3).
//   read_words -> unpack_rows -> (engine) -> pack_rows -> write_words
// A row of a plane starts at any byte: reading skips the bytes before it, writing carries the bytes
// of an incomplete word on to the next row of the same plane.
#ifndef PACKING_HPP
#define PACKING_HPP

#include "fifo.hpp"
#include "work.hpp"

// Splits one pixel block into its codes. The width takes one of a few constant values, so each case
// is wiring and the choice a multiplexer (DEC1), not a barrel shifter.
template <class C>
CodeBlock<C> split_block(typename C::in_gear_t bits, Count<16> width) {
#pragma HLS INLINE
  static_assert(sizeof(typename C::in_gear_t) > WORD_BYTES, "in_gear_t must be wider than a word");
  static_assert(sizeof(typename C::in_gear_t) >= C::in_width(C::IN_WIDTHS - 1),
                "in_gear_t must hold a block of the largest width, the last of in_width");
  CodeBlock<C> block;
split_width:
  for (int k = 0; k < C::IN_WIDTHS; k++) {
#pragma HLS UNROLL  // one case per width that occurs; the first is also the default
    const int w = C::in_width(k);
    if (k == 0 || width == w) {
    split_code:
      for (int i = 0; i < BLOCK_CODES; i++) {
#pragma HLS UNROLL  // wiring
        block.code[i] = typename C::code_t(uint32_t(bits >> (i * w)) & ((1u << w) - 1));
      }
    }
  }
  return block;
}

// 128 bits of a window of words, from its byte `skip` on.
template <class C, int WORDS>
typename C::in_gear_t from_byte(const uint64_t window[WORDS], Count<WORDS * WORD_BYTES> skip) {
#pragma HLS INLINE
  typedef typename C::in_gear_t gear_t;
  uint64_t word[3] = {0, 0, 0};
from_word:
  for (int k = 0; k < WORDS; k++) {
#pragma HLS UNROLL  // a multiplexer
    if (skip / WORD_BYTES == k) {
    from_next:
      for (int i = 0; i < 3; i++) {
#pragma HLS UNROLL  // wiring
        if (k + i < WORDS) word[i] = window[k + i];
      }
    }
  }
  const int shift = 8 * int(skip % WORD_BYTES);
  const uint64_t low = shift ? (word[0] >> shift) | (word[1] << (WORD_BITS - shift)) : word[0];
  const uint64_t high = shift ? (word[1] >> shift) | (word[2] << (WORD_BITS - shift)) : word[1];
  return gear_t(low) | (gear_t(high) << WORD_BITS);
}

// Turns the words of each row into pixel blocks. The last words are kept as they came; only the
// byte at which the next block begins goes round from step to step, and the shift lies behind it.
// A block of up to 8 bytes leaves in every step but, possibly, a row's first; a longer one needs a
// word in every step. Where a pixel takes the place of a row, it leaves again and again.
template <class C>
void unpack_rows(Fifo<UnpackWork<C>>& work_in, Fifo<UnpackJob>& jobs,
                 Fifo<typename C::bus_t>& words, Fifo<CodeBlock<C>>& blocks, Fifo<count_t>& count) {
  const int kept = (C::in_width(C::IN_WIDTHS - 1) + WORD_BYTES - 1) / WORD_BYTES + 1;
  const int end_byte = kept * WORD_BYTES;
  const UnpackWork<C> w = work_in.read();
  uint64_t window[kept];
#pragma HLS ARRAY_PARTITION variable = window complete  // registers
window_clear:
  for (int k = 0; k < kept; k++) {
#pragma HLS UNROLL  // registers
    window[k] = 0;
  }
  cycle_t total = 0;
  Digit<typename C::x_t> x;  // of the row
  x.start(w.width);
  UnpackJob job = jobs.read();
  Count<16> step = job.repeat ? Count<16>(0) : job.bits;  // how far a step goes
  int8_t less = step - WORD_BYTES;                        // and one that takes a word, too
  // the byte of the window behind the next block
  Count<2 * end_byte + WORD_BYTES> reach = end_byte + job.offset + job.bits;
unpack_step:
  for (bool end = false; !end;) {
#pragma HLS PIPELINE II = 1  // at most one word in and one block out a cycle
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_WIDTH
    const bool take = reach > end_byte, fits = reach <= end_byte + WORD_BYTES;
    if (take) {
    window_shift:
      for (int k = 0; k + 1 < kept; k++) {
#pragma HLS UNROLL  // registers
        window[k] = window[k + 1];
      }
      window[kept - 1] = uint64_t(words.read());
    }
    if (fits) {
      const Count<end_byte> skip = reach - job.bits - (take ? WORD_BYTES : 0);
      blocks.write(split_block<C>(from_byte<C, kept>(window, skip), job.bits));
    }
    if (x.step(fits)) {
      end = job.last;
      if (!end) job = jobs.read();
      step = job.repeat ? Count<16>(0) : job.bits;
      less = step - WORD_BYTES;
      reach = end_byte + job.offset + job.bits;
    } else {
      reach += fits ? (take ? less : int8_t(step)) : int8_t(-WORD_BYTES);
    }
    total++;
  }
  count.write(total);
}

// Joins eight codes to one pixel block.
template <class C>
typename C::out_gear_t join_block(const typename C::code_t code[BLOCK_CODES], Count<16> width) {
#pragma HLS INLINE
  typedef typename C::out_gear_t gear_t;
  static_assert(sizeof(gear_t) > WORD_BYTES, "out_gear_t must be wider than a word");
  static_assert(sizeof(gear_t) >= C::out_width(C::OUT_WIDTHS - 1),
                "out_gear_t must hold a block of the largest width, the last of out_width");
  gear_t bits = 0;
join_width:
  for (int k = 0; k < C::OUT_WIDTHS; k++) {
#pragma HLS UNROLL  // one case per width that occurs
    const int w = C::out_width(k);
    if (width == w) {
    join_code:
      for (int i = 0; i < BLOCK_CODES; i++) {
#pragma HLS UNROLL  // wiring
        bits = bits | (gear_t(code[i]) << (i * w));
      }
    }
  }
  return bits;
}

// Collects one output row of the tile, then emits the complete words of each plane in turn: every
// block at each of its places, place by place across, row by row down. A tile of one plane, stored
// once, is packed as it comes. Words of the last layer are the accumulators themselves.
template <class C>
void pack_rows(Fifo<PackWork<C>>& work_in, Fifo<TileJob<C>>& tiles, Fifo<CodeVector<C>>& codes,
               Fifo<SumVector<C>>& sums, Fifo<typename C::bus_t>& words, Fifo<count_t>& count) {
  typedef typename C::out_gear_t gear_t;
  static_assert(C::PE % BLOCK_CODES == 0, "PE must be a multiple of 8, the codes of a block");
  static_assert(C::PACK_PLANES * BLOCK_CODES == C::PE, "PACK_PLANES must be PE / 8");
  static_assert(sizeof(typename C::acc_t) <= WORD_BYTES, "acc_t must fit a bus word");
  static CodeVector<C> row[C::PACK_WIDTH];
#pragma HLS AGGREGATE variable = row compact = bit  // one wide memory word per pixel
  const PackWork<C> w = work_in.read();
  cycle_t total = 0;
  gear_t gear[C::PACK_PLANES];
  Count<31> bytes[C::PACK_PLANES];
#pragma HLS ARRAY_PARTITION variable = gear complete   // registers: the carry of each plane
#pragma HLS ARRAY_PARTITION variable = bytes complete  // registers
pack_clear:
  for (int j = 0; j < C::PACK_PLANES; j++) {
#pragma HLS UNROLL  // registers
    gear[j] = 0;
    bytes[j] = 0;
  }
  const bool two = w.out_bits > WORD_BYTES;  // a block may complete two words
  // bytes that are held where the next block completes a word
  const Count<WORD_BYTES> enough = max_of<int>(WORD_BYTES - int(w.out_bits), 0);
  Digit<typename C::x_t> x, column;
  Digit<typename C::y_t> y;
  Digit<Count<C::MAX_IMAGES>> image;
  Digit<Count<C::MAX_PASSES>> tile;
  Digit<Count<C::PACK_PLANES>> plane;
  Digit<Count<MAX_UPSCALE>> across, down;  // place of a pixel
  Digit<Count<C::PE>> lane;
  x.start(w.out_width);       // of the row that is collected
  column.start(w.out_width);  // of the plane that is packed
  y.start(w.out_height);
  image.start(w.images);
  tile.start(w.tiles);
  TileJob<C> job = tiles.read();
  plane.start(job.planes);
  across.start(w.places_w);
  down.start(w.places_h);
  lane.start(job.lanes);
  Count<C::PACK_PLANES> from = 0, row_from = 0;  // plane that the block, the stored row comes from
  SumVector<C> vector;
#pragma HLS ARRAY_PARTITION variable = vector.sum complete  // registers: any lane
  const bool once = w.places_w == 1 && w.places_h == 1;
  bool direct = once && job.planes == 1;  // nothing to collect
  bool collect = !direct;
  bool insert = true;  // known a step before: a block comes in, no second word, not the last one
  bool flush = false;
  gear_t g = 0, next_gear = 0;
  Count<31> held = 0, next_held = 0;
pack_step:
  for (bool end = false; !end;) {
#pragma HLS PIPELINE II = 1  // a pixel in or a word out a cycle
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::PACK_WIDTH
    bool row_end = false;  // of all planes
    total++;
    if (w.raw) {
      if (lane.value == 0) vector = sums.read();
      words.write(typename C::bus_t(int64_t(vector.sum[lane.value])));
      row_end = lane.step() && x.step();
    } else if (collect) {
      row[x.value] = codes.read();
      collect = !x.step();
      g = gear[0];
      held = bytes[0];
      next_gear = C::PACK_PLANES > 1 ? gear[1 % C::PACK_PLANES] : gear_t(0);
      next_held = C::PACK_PLANES > 1 ? bytes[1 % C::PACK_PLANES] : Count<31>(0);
    } else {
      const Count<C::PACK_PLANES> j = plane.value;
      gear_t block = 0;
      Count<16> added = 0;
      if (insert) {
        const CodeVector<C> pixel = direct ? codes.read() : row[column.value];
#pragma HLS ARRAY_PARTITION variable = pixel.code complete  // wires: any plane
        block = join_block<C>(&pixel.code[from * BLOCK_CODES], w.out_bits);
        added = w.out_bits;
      }
      // A block comes where less than a word is held: three bits say where it goes.
      const Count<WORD_BYTES - 1> first = held % WORD_BYTES;
      const gear_t joined = g | (block << (8 * int(first)));
      if (insert ? first >= enough : held >= WORD_BYTES || (flush && held > 0)) {
        words.write(typename C::bus_t(uint64_t(joined)));
        // behind the word; from byte 8 - first on, whose distance from 1 is the inverse of `first`
        g = insert ? gear_t((block >> 8) >> (8 * (WORD_BYTES - 1 - int(first))))
                   : gear_t(g >> WORD_BITS);
        held += added - WORD_BYTES;
      } else {
        g = joined;
        held += added;
      }
      bool plane_end = flush;
      if (!flush) {
        insert = !(two && insert);
        if (across.step(insert)) {
          from = row_from;
          if (column.step()) {
            const bool rows_end = down.step();
            row_from += w.apart ? w.places_w : Count<MAX_UPSCALE>(rows_end ? 1 : 0);
            from = row_from;
            if (rows_end) {
              flush = y.last;  // the plane's last, incomplete word
              insert = !flush;
              plane_end = insert;
            }
          }
        } else if (insert && w.apart) {
          from++;
        }
      } else {
        flush = false;
        insert = true;
        g = 0;
        held = 0;
      }
      if (plane_end) {
        // The next plane has been read a plane before, so that no choice among all of them lies
        // behind the last block; the first ones of a row are taken while it is collected.
        gear[j] = g;
        bytes[j] = held;
        g = direct ? g : next_gear;
        held = direct ? held : next_held;
        // Behind the last one comes nothing: a tile that is packed as it comes begins with that.
        const bool exists = int(j) + 2 < C::PACK_PLANES;
        const int ahead = exists ? int(j) + 2 : 0;
        next_gear = exists ? gear[ahead] : gear_t(0);
        next_held = exists ? bytes[ahead] : Count<31>(0);
        row_end = plane.step();
        collect = row_end && !direct;
        if (row_end) {
          from = 0;
          row_from = 0;
        }
      }
    }
    if (row_end && y.step() && image.step()) {
      end = tile.step();
      if (!end) {
        job = tiles.read();
        plane.start(job.planes);
        lane.start(job.lanes);
        direct = once && job.planes == 1;
        collect = !direct;
      }
    }
  }
  count.write(total);
}

#endif  // PACKING_HPP
