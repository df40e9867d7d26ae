// What products take in: numbers rounded to BF16, and their sums by runs of 16 columns.
#pragma once

#include "backend/cuda/cuda_kernels.h"
#include "backend/cuda/gpu.cuh"

namespace bise::gpu {

// Columns k and k + 1 of a row. The lanes of a warp have neighbouring pairs, and all of them come, also beyond the row.
template <int planes>
BISE_DEVICE void put_inputs(const InputArgs& a, int64_t row, int64_t k, float low, float high) {
  uint32_t pairs[planes];
  split_pair<planes>(low, high, pairs);
  BISE_UNROLL
  for (int p = 0; p < planes; ++p) {
    float sum = bf16_low(pairs[p]) + bf16_high(pairs[p]);
    BISE_UNROLL
    for (int mask = 1; mask < 8; mask *= 2) sum += shuffle_xor(sum, mask);
    if (k >= a.padded) continue;
    *reinterpret_cast<uint32_t*>(a.out + (p * a.rows + row) * a.padded + k) = pairs[p];
    if (k % 16 == 0) a.sums[(p * a.rows + row) * (a.padded / 16) + k / 16] = sum;
  }
}

}  // namespace bise::gpu
