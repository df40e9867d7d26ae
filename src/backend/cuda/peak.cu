#include <chrono>

#include "backend/cuda/cuda_kernels.h"
#include "backend/cuda/launch.cuh"

namespace bise::gpu {
namespace {

constexpr int kThreads = 256, kChains = 8, kRounds = 4096;
constexpr double kOperations = 2.0 * 16 * 8 * 16;  // of one mma

struct PeakArgs {
  float* out;
  bool operator==(const PeakArgs&) const = default;
};
BISE_KERNEL(kThreads) multiply_in_registers(const PeakArgs a) {
  float sums[kChains][4] = {};
  // Not zeros: they take less power, and some chips go faster with them.
  const uint32_t x = 0x3F803F80u + static_cast<uint32_t>(thread_index()) * 0x00030005u;
  const uint32_t w[4] = {x, x ^ 0x80000000u, x ^ 0x00008000u, x + 0x00110011u};
  for (int round = 0; round < kRounds; ++round) {
    BISE_UNROLL
    for (int c = 0; c < kChains; ++c) mma_bf16(sums[c], w, x + static_cast<uint32_t>(c), x);
  }
  float all = 0.0f;
  for (int c = 0; c < kChains; ++c) all += sums[c][0] + sums[c][1] + sums[c][2] + sums[c][3];
  a.out[block_x() * num_threads() + thread_index()] = all;
}

}  // namespace

double measure_mma_peak(Queue& queue, int32_t num_multiprocessors, double seconds) {
  using Clock = std::chrono::steady_clock;
  constexpr int kBlocksPerMultiprocessor = 2;
  const int64_t blocks = int64_t{num_multiprocessors} * kBlocksPerMultiprocessor;
  auto out = allocate_device(static_cast<uint64_t>(blocks) * kThreads * sizeof(float), "a measurement");
  if (!out) return 0.0;
  double best = 0.0;
  for (const Clock::time_point start = Clock::now();;) {
    const Clock::time_point begin = Clock::now();
    launch(multiply_in_registers, blocks, 1, kThreads, 0, queue, PeakArgs{static_cast<float*>(out->data())});
    if (!queue.flush() || !synchronize(queue.stream())) return 0.0;
    const Clock::time_point end = Clock::now();
    const double operations = kOperations * kChains * kRounds * static_cast<double>(blocks) * (kThreads / kWarp);
    const double rate = operations / std::chrono::duration<double>(end - begin).count() * 1e-12;
    if (rate > best) best = rate;
    if (std::chrono::duration<double>(end - start).count() >= seconds) return best;
  }
}

}  // namespace bise::gpu
