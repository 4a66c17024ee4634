// SPDX-License-Identifier: Apache-2.0
// Gearboxes between 64-bit bus words and pixel blocks of 8 codes of T bits = T bytes
// (docs/formats.md, section 3), and the two bus processes that move words in bursts.
//   read_words -> unpack_rows -> (engine) -> pack_rows -> write_words
// A row of a plane starts at any byte: reading skips the bytes before it, writing carries the bytes
// of an incomplete word on to the next row of the same plane.
#ifndef PACKING_HPP
#define PACKING_HPP

#include "fifo.hpp"
#include "layer.hpp"

// Eight codes of one pixel, in channel order.
template <class C>
struct CodeBlock {
  typename C::code_t code[BLOCK_CODES];
};

// One code per output channel of a tile, for one pixel.
template <class C>
struct CodeVector {
  typename C::code_t code[C::PE];
};

// One accumulator per output channel of a tile, for one pixel.
template <class C>
struct SumVector {
  typename C::acc_t sum[C::PE];
};

// The same for PIXELS neighbours in a row; those beyond its end carry sums that nobody uses.
template <class C>
struct SumGroup {
  SumVector<C> pixel[C::PIXELS];
};

// Words that one row of a plane touches, given the byte offset of its first byte.
inline int32_t row_words(int32_t offset, int32_t width, int32_t bits) {
  return (offset + width * bits + WORD_BYTES - 1) / WORD_BYTES;
}

// Reads the words of every row of the pass's input planes, row by row, plane by plane within a row;
// of an add's second input after the first. Planes that a normalisation asks for beyond the map's
// edge are replaced by the edge's, and ignored later.
//
// Words come from DRAM or from the on-chip memory `chip`, which no other process of the layer uses.
// Of a cached input the first tile stores what it takes from DRAM; a word that two rows share is
// on chip when the second of them asks for it, so that every word crosses the bus once.
template <class C>
void read_words(const typename C::bus_t* fm, typename C::bus_t* chip, const LayerDesc& d,
                Fifo<Pass>& pass_in, Fifo<Pass>& pass_out, Fifo<typename C::bus_t>& words,
                Fifo<count_t>& count, Fifo<count_t>& fetched) {
  static_assert(sizeof(typename C::bus_t) == WORD_BYTES, "a bus word must take 8 bytes in memory");
  const Pass pass = pass_in.read();
  pass_out.write(pass);
  count_t iterations = 0, from_ddr = 0;
  const int32_t chip_stride = d.chip_swap ? C::CHIP_B_WORDS : C::CHIP_A_WORDS;
read_image:
  for (int32_t n = 0; n < pass.input_parts; n++) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = C::MAX_IMAGES + 1
    const InputPart part = input_part(d, pass, n);
  read_row:
    for (int32_t y = part.begin; y < part.end; y++) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_HEIGHT
    read_block:
      for (int32_t b = 0; b < part.blocks * d.sources; b++) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_BLOCKS
        const bool second = b >= part.blocks;
        const int32_t bits = second ? d.in2_bits : d.in_bits;
        const int32_t row_byte = y * d.in_width * bits;
        const int32_t touched = row_words(row_byte % WORD_BYTES, d.in_width, bits);
        const int32_t asked = part.first_block + (second ? b - part.blocks : b);
        const int32_t plane =
            d.op == OP_LRN ? max_of(0, min_of(asked, d.group_out_planes - 1)) : asked;
        const int32_t place = second ? d.in2_chip : d.in_chip;
        const int32_t map = second ? d.in2_addr : d.in_addr;
        const int32_t offset =
            plane * (second ? d.in2_plane_words : d.in_plane_words) + row_byte / WORD_BYTES;
        const int32_t address = part.image * C::ARENA_WORDS + map + offset;
        const int32_t copy =
            part.image * chip_stride + (place == PLACE_CACHE ? d.cache_addr : map) + offset;
        const bool fetch = place == PLACE_DDR || (place == PLACE_CACHE && part.fetch);
        const int32_t shared = place == PLACE_CACHE && row_byte % WORD_BYTES != 0 ? 1 : 0;
        const int32_t held = fetch ? shared : touched;
      read_chip:
        for (int32_t i = 0; i < held; i++) {
#pragma HLS PIPELINE II = 1  // one word a cycle
#pragma HLS LOOP_TRIPCOUNT min = 0 max = C::MAX_ROW_WORDS
          words.write(chip[copy + i]);
        }
      read_word:
        for (int32_t i = held; i < touched; i++) {
#pragma HLS PIPELINE II = 1  // one bus word a cycle; a burst of known length
#pragma HLS LOOP_TRIPCOUNT min = 0 max = C::MAX_ROW_WORDS
          const typename C::bus_t word = fm[address + i];
          if (place == PLACE_CACHE) chip[copy + i] = word;
          words.write(word);
        }
        iterations += touched;
        from_ddr += touched - held;
      }
    }
  }
  count.write(iterations);
  fetched.write(from_ddr);
}

// Splits one pixel block into its codes. The width takes one of a few constant values, so each case
// is wiring and the choice a multiplexer (DEC1), not a barrel shifter.
template <class C>
CodeBlock<C> split_block(typename C::in_gear_t bits, int32_t width) {
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

// Turns the words of each row into pixel blocks.
template <class C>
void unpack_rows(const LayerDesc& d, Fifo<Pass>& pass_in, Fifo<Pass>& pass_out,
                 Fifo<typename C::bus_t>& words, Fifo<CodeBlock<C>>& blocks, Fifo<count_t>& count) {
  typedef typename C::in_gear_t gear_t;
  const Pass pass = pass_in.read();
  pass_out.write(pass);
  count_t total = 0;
unpack_image:
  for (int32_t n = 0; n < pass.input_parts; n++) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = C::MAX_IMAGES + 1
    const InputPart part = input_part(d, pass, n);
  unpack_row:
    for (int32_t y = part.begin; y < part.end; y++) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_HEIGHT
    unpack_block:
      for (int32_t b = 0; b < part.blocks * d.sources; b++) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_BLOCKS
        const int32_t bits = b < part.blocks ? d.in_bits : d.in2_bits;
        const int32_t offset = (y * d.in_width * bits) % WORD_BYTES;
        // A block of up to 8 bytes leaves in every iteration but, possibly, the first; a longer one
        // needs a word in every iteration.
        const int32_t iterations = bits > WORD_BYTES
                                       ? row_words(offset, d.in_width, bits)
                                       : d.in_width + (WORD_BYTES - offset < bits ? 1 : 0);
        gear_t gear = 0;
        int32_t bytes = -1;  // valid bytes in the gear; -1 before the first word
      unpack_step:
        for (int32_t i = 0; i < iterations; i++) {
#pragma HLS PIPELINE II = 1  // at most one word in and one block out a cycle
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_WIDTH
          gear_t block = gear;
          bool emit = bytes >= bits;
          if (emit) {
            gear = gear >> (8 * bits);
            bytes -= bits;
          } else {
            const gear_t word = gear_t(words.read());
            if (bytes < 0) {  // first word of the row: drop the bytes before it
              block = word >> (8 * offset);
              bytes = WORD_BYTES - offset;
              emit = bytes >= bits;
              gear = emit ? gear_t(block >> (8 * bits)) : block;
            } else {  // complete the block in front of the word's own bytes
              block = gear | (word << (8 * bytes));
              emit = bytes + WORD_BYTES >= bits;
              gear = emit ? gear_t(word >> (8 * (bits - bytes))) : block;
              bytes += WORD_BYTES;
            }
            bytes -= emit ? bits : 0;
          }
          if (emit) blocks.write(split_block<C>(block, bits));
        }
        total += iterations;
      }
    }
  }
  count.write(total);
}

// Joins eight codes to one pixel block.
template <class C>
typename C::out_gear_t join_block(const typename C::code_t code[BLOCK_CODES], int32_t width) {
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

// Collects one output row of the tile, then emits the complete words of each plane in turn. Words
// of the last layer are the accumulators themselves.
template <class C>
void pack_rows(const LayerDesc& d, Fifo<Pass>& pass_in, Fifo<Pass>& pass_out,
               Fifo<CodeVector<C>>& codes, Fifo<SumVector<C>>& sums, Fifo<typename C::bus_t>& words,
               Fifo<count_t>& count) {
  typedef typename C::out_gear_t gear_t;
  static_assert(C::PE % BLOCK_CODES == 0, "PE must be a multiple of 8, the codes of a block");
  static_assert(C::PACK_PLANES * BLOCK_CODES == C::PE, "PACK_PLANES must be PE / 8");
  static_assert(sizeof(typename C::acc_t) <= WORD_BYTES, "acc_t must fit a bus word");
  static CodeVector<C> row[C::PACK_WIDTH];
#pragma HLS AGGREGATE variable = row  // one wide memory word per pixel
  const Pass pass = pass_in.read();
  pass_out.write(pass);
  count_t total = 0;
  if (pass.last && d.raw) {
    const int32_t lanes = min_of(C::PE, d.out_channels - pass.tile * C::PE);
  raw_pixel:
    for (int32_t i = 0; i < pass.images * d.out_height * d.out_width; i++) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_IMAGES
      const SumVector<C> vector = sums.read();
    raw_lane:
      for (int32_t p = 0; p < lanes; p++) {
#pragma HLS PIPELINE II = 1  // one word a cycle
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::PE
        words.write(typename C::bus_t(int64_t(vector.sum[p])));
      }
      total += lanes;
    }
  } else if (pass.last) {
    const int32_t steps = d.out_bits > WORD_BYTES ? 2 : 1;  // a block may complete two words
  pack_image:
    for (int32_t n = 0; n < pass.images; n++) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_IMAGES
      gear_t gear[C::PACK_PLANES];
      int32_t bytes[C::PACK_PLANES];
#pragma HLS ARRAY_PARTITION variable = gear complete   // registers: the carry of each plane
#pragma HLS ARRAY_PARTITION variable = bytes complete  // registers
    pack_clear:
      for (int j = 0; j < C::PACK_PLANES; j++) {
#pragma HLS UNROLL  // registers
        gear[j] = 0;
        bytes[j] = 0;
      }
    pack_row:
      for (int32_t y = 0; y < d.out_height; y++) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_HEIGHT
      pack_collect:
        for (int32_t x = 0; x < d.out_width; x++) {
#pragma HLS PIPELINE II = 1  // one pixel a cycle
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::PACK_WIDTH
          row[x] = codes.read();
        }
        total += d.out_width;
        const bool last_row = y == d.out_height - 1;
      pack_plane:
        for (int32_t j = 0; j < pass.planes; j++) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::PACK_PLANES
          gear_t g = gear[j];
          int32_t held = bytes[j];
          const int32_t iterations = d.out_width * steps + (last_row ? 1 : 0);
        pack_step:
          for (int32_t i = 0; i < iterations; i++) {
#pragma HLS PIPELINE II = 1  // at most one word a cycle
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 2 * C::PACK_WIDTH + 1
            const bool flush = i == d.out_width * steps;  // the plane's last, incomplete word
            const bool insert = !flush && (steps == 1 || i % 2 == 0);
            const int32_t x = steps == 1 ? i : i / 2;
            gear_t block = 0;
            int32_t added = 0;
            if (insert) {
              block = join_block<C>(&row[x].code[j * BLOCK_CODES], d.out_bits);
              added = d.out_bits;
            }
            const gear_t joined = g | (block << (8 * held));
            if (held + added >= WORD_BYTES || (flush && held > 0)) {
              words.write(typename C::bus_t(uint64_t(joined)));
              g = held >= WORD_BYTES ? gear_t(g >> WORD_BITS)
                                     : gear_t(block >> (8 * (WORD_BYTES - held)));
              held += added - WORD_BYTES;
            } else {
              g = joined;
              held += added;
            }
          }
          total += iterations;
          gear[j] = g;
          bytes[j] = held;
        }
      }
    }
  }
  count.write(total);
}

// Writes the words of each row and plane behind the ones of the row before, to DRAM or to the
// on-chip memory `chip`, which no other process of the layer uses.
template <class C>
void write_words(typename C::bus_t* fm, typename C::bus_t* chip, const LayerDesc& d,
                 Fifo<Pass>& pass_in, Fifo<typename C::bus_t>& words, Fifo<count_t>& count) {
  const Pass pass = pass_in.read();
  count_t total = 0;
write_image:
  for (int32_t n = 0; n < (pass.last ? pass.images : 0); n++) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_IMAGES
    const int32_t base = d.out_chip
                             ? n * (d.chip_swap ? C::CHIP_A_WORDS : C::CHIP_B_WORDS) + d.out_addr
                             : n * C::ARENA_WORDS + d.out_addr;
    const int32_t rows = d.raw ? d.out_height * d.out_width : d.out_height;
    const int32_t lanes = min_of(C::PE, d.out_channels - pass.tile * C::PE);
  write_row:
    for (int32_t y = 0; y < rows; y++) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_HEIGHT
      // Whole words before and after this row; the last row also flushes the incomplete one.
      const int32_t row_bytes = d.out_width * d.out_bits;
      const int32_t before = y * row_bytes / WORD_BYTES;
      const int32_t after = y == rows - 1 ? d.out_plane_words : (y + 1) * row_bytes / WORD_BYTES;
    write_plane:
      for (int32_t j = 0; j < (d.raw ? 1 : pass.planes); j++) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::PACK_PLANES
        const int32_t address = d.raw ? base + y * d.out_channels + pass.tile * C::PE
                                      : base + (pass.out_plane + j) * d.out_plane_words + before;
        const int32_t length = d.raw ? lanes : after - before;
        const int32_t kept = d.out_chip ? length : 0;
      write_chip:
        for (int32_t i = 0; i < kept; i++) {
#pragma HLS PIPELINE II = 1  // one word a cycle
#pragma HLS LOOP_TRIPCOUNT min = 0 max = C::MAX_ROW_WORDS
          chip[address + i] = words.read();
        }
      write_word:
        for (int32_t i = kept; i < length; i++) {
#pragma HLS PIPELINE II = 1  // one bus word a cycle; a burst of known length
#pragma HLS LOOP_TRIPCOUNT min = 0 max = C::MAX_ROW_WORDS
          fm[address + i] = words.read();
        }
        total += length;
      }
    }
  }
  count.write(total);
}

#endif  // PACKING_HPP
