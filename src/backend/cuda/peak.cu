#include <algorithm>
#include <chrono>

#include "backend/cuda/cuda_kernels.h"
#include "backend/cuda/launch.cuh"

namespace bise::gpu {
namespace {

constexpr int kThreads = 256, kChains = 8;
constexpr double kOperations = 2.0 * 16 * 8 * 16;  // of one mma

struct PeakArgs {
  float* out;
  int32_t rounds;
  bool operator==(const PeakArgs&) const = default;
};
BISE_KERNEL(kThreads) multiply_in_registers(const PeakArgs a) {
  begin_kernel();
  float sums[kChains][4] = {};
  // Not zeros: they take less power, and some chips go faster with them.
  const uint32_t x = 0x3F803F80u + static_cast<uint32_t>(thread_index()) * 0x00030005u;
  const uint32_t w[4] = {x, x ^ 0x80000000u, x ^ 0x00008000u, x + 0x00110011u};
  for (int round = 0; round < a.rounds; ++round) {
    BISE_UNROLL
    for (int c = 0; c < kChains; ++c) mma_bf16(sums[c], w, x + static_cast<uint32_t>(c), x);
  }
  float all = 0.0f;
  for (int c = 0; c < kChains; ++c) all += sums[c][0] + sums[c][1] + sums[c][2] + sums[c][3];
  a.out[block_x() * num_threads() + thread_index()] = all;
}

struct ReadArgs {
  const uint8_t* data;
  uint64_t bytes;
  int32_t passes;
  uint32_t* sink;
  bool operator==(const ReadArgs&) const = default;
};
struct alignas(16) Words {
  uint32_t word[4];
};
BISE_KERNEL(kThreads) read_all(const ReadArgs a) {
  begin_kernel();
  const auto* words = reinterpret_cast<const Words*>(a.data);
  const uint64_t count = a.bytes / sizeof(Words),
                 step = static_cast<uint64_t>(num_threads()) * static_cast<uint64_t>(num_blocks_x());
  uint32_t bits = 0;
  for (int pass = 0; pass < a.passes; ++pass) {
    BISE_UNROLL_BY_8
    for (uint64_t i = static_cast<uint64_t>(block_x()) * static_cast<uint64_t>(num_threads()) +
                      static_cast<uint64_t>(thread_index());
         i < count; i += step) {
      const Words w = words[i];
      bits |= w.word[0] ^ w.word[1] ^ w.word[2] ^ w.word[3];
    }
  }
  if (bits != 0) *a.sink = bits;  // the memory is zero: nobody writes, but no read can be left out
}

}  // namespace

void launch_read(Queue& queue, const void* data, uint64_t bytes, int32_t passes, int32_t num_multiprocessors,
                 uint32_t* sink) {
  constexpr int64_t kBlocksPerMultiprocessor = 8;
  launch(read_all, kBlocksPerMultiprocessor * num_multiprocessors, 1, kThreads, 0, queue,
         ReadArgs{static_cast<const uint8_t*>(data), bytes, passes, sink});
}

double measure_mma_peak(Queue& queue, int32_t num_multiprocessors, double seconds) {
  using Clock = std::chrono::steady_clock;
  constexpr int kBlocksPerMultiprocessor = 2;
  const int64_t blocks = int64_t{num_multiprocessors} * kBlocksPerMultiprocessor;
  auto out = allocate_device(static_cast<uint64_t>(blocks) * kThreads * sizeof(float), "a measurement");
  if (!out) return 0.0;
  constexpr double kLeast = 4e-3;  // seconds: so that starting and waiting are under a hundredth
  double best = 0.0;
  int32_t rounds = 16;
  for (const Clock::time_point start = Clock::now();;) {
    const Clock::time_point begin = Clock::now();
    launch(multiply_in_registers, blocks, 1, kThreads, 0, queue, PeakArgs{static_cast<float*>(out->data()), rounds});
    if (!queue.flush() || !synchronize(queue.stream())) return 0.0;
    const Clock::time_point end = Clock::now();
    const double taken = std::chrono::duration<double>(end - begin).count();
    if (taken < kLeast && rounds < (1 << 24)) {
      rounds *= 2;
      continue;
    }
    best = std::max(best,
                    kOperations * kChains * rounds * static_cast<double>(blocks) * (kThreads / kWarp) / taken * 1e-12);
    if (std::chrono::duration<double>(end - start).count() >= seconds) return best;
  }
}

}  // namespace bise::gpu
