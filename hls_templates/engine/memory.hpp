// SPDX-License-Identifier: Apache-2.0
// The two processes at the feature maps' memory ports. Bursts are asked for by hand
// (hls::burst_maxi, UG1399), several before the first one's words are there, so that a short row
// does not wait for the latency of the one before.
#ifndef MEMORY_HPP
#define MEMORY_HPP

#include "fifo.hpp"
#include "memory_port.hpp"
#include "work.hpp"

// Reads the words of every row of the planes that plan_reads lists, from DRAM or from the on-chip
// memory `chip`, which no other process of the layer uses. Of a cached input the first tile stores
// what it takes from DRAM; a word that two rows share is on chip when the second of them asks for
// it, so that every word crosses the bus once.
template <class C>
void read_words(MemoryPort<C> fm, typename C::bus_t* chip, Fifo<ReadJob<C>>& jobs,
                Fifo<typename C::bus_t>& words, Fifo<count_t>& count, Fifo<count_t>& fetched) {
  static_assert(sizeof(typename C::bus_t) == WORD_BYTES, "a bus word must take 8 bytes in memory");
  static_assert((C::READ_AHEAD & (C::READ_AHEAD - 1)) == 0, "READ_AHEAD must be a power of two");
  cycle_t total = 0;
  count_t from_ddr = 0;
  ReadJob<C> ahead[C::READ_AHEAD];
#pragma HLS ARRAY_PARTITION variable = ahead complete  // registers
  // places of the row that is read, of the one behind it and of the one asked for
  Count<C::READ_AHEAD - 1> first = 0, second = 1 % C::READ_AHEAD, asked = 0;
  Count<C::READ_AHEAD> waiting = 0;  // rows asked for
  bool none = true;  // waiting == 0: the row that is read next is asked for in the same step
  bool all_asked = false;
  Digit<Count<C::MAX_ROW_WORDS>> at, length[C::READ_AHEAD];  // of the row; rows asked for
#pragma HLS ARRAY_PARTITION variable = length complete       // registers
  at.start(1);
length_clear:
  for (int k = 0; k < C::READ_AHEAD; k++) {
#pragma HLS UNROLL  // registers
    length[k].start(1);
  }
read_word:
  for (bool end = false; !end;) {
#pragma HLS PIPELINE II = 1  // one word a cycle
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_ROW_WORDS
    const bool ask = !all_asked && (none || (waiting < C::READ_AHEAD && !jobs.empty()));
    const bool one = waiting == 1;
    Digit<Count<C::MAX_ROW_WORDS>> behind = length[second];
    if (ask) {
      const ReadJob<C> job = jobs.read();
      const addr_t fetch = addr_t(job.words) - addr_t(job.held);
      if (fetch != 0) fm.read_request(job.address + addr_t(job.held), fetch);
      from_ddr += fetch;
      ahead[asked] = job;
      length[asked].start(job.words);
      if (none) at.start(job.words);
      if (one) behind.start(job.words);  // it is the second
      asked = Count<C::READ_AHEAD - 1>((asked + 1) % C::READ_AHEAD);
      all_asked = job.last;
    }
    const ReadJob<C>& job = ahead[first];
    typename C::bus_t word;
    if (at.value < job.held) {
      word = chip[job.copy + addr_t(at.value)];
    } else {
      word = fm.read();
      if (job.keep) chip[job.copy + addr_t(at.value)] = word;
    }
    words.write(word);
    total++;
    const bool row_end = at.step();
    if (row_end) {
      end = job.last;
      at = behind;
      first = second;
      second = Count<C::READ_AHEAD - 1>((second + 1) % C::READ_AHEAD);
    }
    none = row_end && (none || (!ask && one));
    // one up or down, not one behind the other
    if (ask && !row_end) waiting++;
    if (row_end && !ask) waiting--;
  }
  count.write(total);
  fetched.write(from_ddr);
}

// Writes the words of each row and plane behind the ones of the row before, to DRAM or to the
// on-chip memory `chip`, which no other process of the layer uses.
template <class C>
void write_words(MemoryPort<C> fm, typename C::bus_t* chip, Fifo<WriteJob<C>>& jobs,
                 Fifo<typename C::bus_t>& words, Fifo<count_t>& count, Fifo<count_t>& stored) {
  cycle_t total = 0;
  count_t to_ddr = 0;
  WriteJob<C> job = {0, 0, false, false};
  Count<C::MAX_ROW_WORDS> at = 0, next = 1;  // of the row; next is at + 1
  Count<C::WRITE_AHEAD> open = 0;            // bursts whose response has not come
  bool begin = true;
write_word:
  for (bool end = false; !end;) {
#pragma HLS PIPELINE II = 1  // one word a cycle
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_ROW_WORDS
    if (begin) {
      job = jobs.read();
      if (!job.on_chip && job.words != 0) {
        if (open == C::WRITE_AHEAD) {
          fm.write_response();
        } else {
          open++;
        }
        fm.write_request(job.address, addr_t(job.words));
      }
    }
    if (job.words != 0) {
      const typename C::bus_t word = words.read();
      if (job.on_chip) {
        chip[job.address + addr_t(at)] = word;
      } else {
        fm.write(word);
        to_ddr++;
      }
      total++;
    }
    begin = job.words == 0 || next == job.words;
    at = begin ? Count<C::MAX_ROW_WORDS>(0) : next;
    next = begin ? Count<C::MAX_ROW_WORDS>(1) : Count<C::MAX_ROW_WORDS>(next + 1);
    end = begin && job.last;
  }
write_end:
  for (Count<C::WRITE_AHEAD> i = 0; i < open; i++) {
#pragma HLS PIPELINE off  // once per layer, for the last few bursts
#pragma HLS LOOP_TRIPCOUNT min = 0 max = C::WRITE_AHEAD
    fm.write_response();
  }
  count.write(total);
  stored.write(to_ddr);
}

#endif  // MEMORY_HPP
