// SPDX-License-Identifier: Apache-2.0
// Test bench: runs the accelerator layer by layer on a network's files and compares the packed
// output of every layer with the reference.
//
//   csim PARAMS GOLDEN OUTPUT IMAGES [LAYERS]
//
// Exit status: 0 everything equal, 1 something differs, 2 a file is missing or does not fit.
#include "testbench.hpp"

#include "accelerator.hpp"

int main(int argc, char** argv) {
  return run_testbench<Network>(argc, argv, accelerator, chip_memory);
}
