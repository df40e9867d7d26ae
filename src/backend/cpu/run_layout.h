// The layout of inputs in 8 bits: what quantize_run() writes and products of integer tiles read.
//
// x = scale * code, in blocks of 32 columns. The tokens of one product (a batch, at most kMaxTokens) go in runs
// of four, then two, then one: as many as a kernel multiplies at once. For each block of columns stands a record
// of every run, one behind the other, so that a product reads them from end to end. A record of n tokens:
//   codes        i8 [8 quads][n][4]
//   scales       f32 [n]
//   scaled sums  f32 [n]            scale times the sum of the codes
//   pair sums    i16 [3][n][2]      of the first half of the block, the second, and both: the sums of columns
//                                   4 i and 4 i + 1, and of 4 i + 2 and 4 i + 3, as narrow sums have them
#pragma once

#include <stdint.h>

namespace bise {

constexpr int kTokenRecord = 52;     // bytes per token
constexpr int kRunScales = 32;       // where the parts begin, per token
constexpr int kRunScaledSums = 36;
constexpr int kRunPairSums = 40;
enum class RunPart : uint8_t { first, second, whole };

// How many tokens the run of a token of a batch has. (Inlined always: see tile_layout.h.)
[[gnu::always_inline]] constexpr int run_tokens(int token, int num_tokens) {
  return token < (num_tokens & ~3) ? 4 : token < (num_tokens & ~1) ? 2 : 1;
}

}  // namespace bise
