// Passes over a row of logits in host memory, in groups: what sampling has to do with all of a vocabulary.
// Function pointers, one set per instruction set; any thread may call them. Plain numbers only, for
// files that are compiled for one instruction set.
#pragma once

#include <stdint.h>

namespace bise {

constexpr int64_t kLogitGroup = 256;  // logits that share a number of each result; the last group may be shorter

struct LogitMath {
  // peaks[g] = the largest of group g. False, and peaks are any numbers, when one of the logits is NaN or
  // +infinity.
  bool (*peaks)(const float* x, int64_t n, float* peaks);
  // sums[g] = sum of exp((x - top) * factor) over group g, to 2e-6 of it; below e^-87 it is 0. No x is above
  // `top`, which is finite, as is factor > 0.
  void (*exp_sums)(const float* x, int64_t n, float top, float factor, float* sums);
};

// For callers without a backend: the same results to rounding, in plain C++.
const LogitMath& scalar_logit_math();

}  // namespace bise
