// SPDX-License-Identifier: Apache-2.0
// Probe: a structure that holds others as one element of a stream.
#include "probe.hpp"

struct Setting {
  ap_uint<4> shift;
  bool negative;
};

struct Order {
  ap_uint<10> words;
  Setting setting[2];
};

static void send_orders(const ap_uint<10> in[ITEMS], Fifo<Order>& out) {
send_order:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // an order a cycle
    const Setting first = {ap_uint<4>(in[i]), false}, second = {ap_uint<4>(i), true};
    const Order order = {in[i], {first, second}};
    out.write(order);
  }
}

static void take_orders(Fifo<Order>& in, ap_int<28> out[ITEMS]) {
take_order:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // an order a cycle
    const Order order = in.read();
    const Setting second = order.setting[1];
    const ap_int<28> moved = ap_int<28>(order.words) << int(second.shift);
    out[i] = second.negative ? ap_int<28>(-moved) : moved;
  }
}

void nested_stream(const ap_uint<10> in[ITEMS], ap_int<28> out[ITEMS]) {
#pragma HLS DATAFLOW  // the processes run at the same time
  Stream<Order, 2> orders("orders");
  PROCESS(send_orders, in, orders);
  PROCESS(take_orders, orders, out);
}

#ifndef __SYNTHESIS__
int main() {
  ap_uint<10> in[ITEMS];
  ap_int<28> out[ITEMS];
  for (int i = 0; i < ITEMS; i++) in[i] = 13 * i;
  nested_stream(in, out);
  for (int i = 0; i < ITEMS; i++) {
    if (out[i] != -((13 * i % 1024) << (i % 16))) return 1;
  }
  return 0;
}
#endif
