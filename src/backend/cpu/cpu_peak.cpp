#include "backend/cpu/cpu_peak.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/cpu_features.h"
#include "backend/cpu/cpu_memory.h"
#include "backend/cpu/panel_kernels.h"

namespace bise {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Operations per second of all threads, the best of the rounds.
template <class Kernel>
double peak_rate(ThreadPool& pool, double seconds, Kernel kernel) {
  constexpr int kSink = 16;  // floats: a cache line for each thread
  const int threads = pool.num_threads();
  std::vector<float> sinks(static_cast<size_t>(threads) * kSink);
  auto numbers = [&](int worker) {
    float* sink = &sinks[static_cast<size_t>(worker) * kSink];
    for (int i = 0; i < kSink; ++i) sink[i] = 0.5f + static_cast<float>(i);
    return sink;
  };
  // Pieces of about a millisecond: a thread that was disturbed is made up for by the others.
  int64_t steps = 64;
  for (double time = 0.0; time < 1e-3 && steps < int64_t{1} << 30; steps *= 2) {
    const auto start = Clock::now();
    kernel(steps, numbers(0));
    time = seconds_since(start);
  }
  const int64_t pieces = int64_t{8} * threads;
  std::vector<double> operations(static_cast<size_t>(threads) * kSink);
  double best = 0.0;
  const auto begin = Clock::now();
  do {
    std::fill(operations.begin(), operations.end(), 0.0);
    const auto start = Clock::now();
    pool.parallel_for(pieces, 1, [&](int64_t, int64_t, int worker) {
      operations[static_cast<size_t>(worker) * kSink] += kernel(steps, numbers(worker));
    });
    const double time = seconds_since(start);
    double sum = 0.0;
    for (double part : operations) sum += part;
    best = std::max(best, sum / time);
  } while (seconds_since(begin) < seconds);
  return best;
}

}  // namespace

MatrixPeak measure_cpu_peak(const CpuKernels& kernels, ThreadPool& pool, double seconds) {
  const double each = seconds / (kernels.panels == nullptr ? 2 : 4);
  auto rate_of = [&](PeakUnit unit) {
    return peak_rate(pool, each, [&](int64_t steps, float* sink) { return kernels.peak(unit, steps, sink); }) / 1e12;
  };
  MatrixPeak peak;
  peak.float_tflops = rate_of(PeakUnit::float_fma);
  peak.int8_tops = rate_of(PeakUnit::int8_dot);
  if (kernels.panels != nullptr) {
    peak.bf16_tflops = peak_rate(pool, each, kernels.panels->peak_bf16) / 1e12;
    if (kernels.panels->peak_int8 != nullptr) peak.matrix_int8_tops = peak_rate(pool, each, kernels.panels->peak_int8) / 1e12;
  }
  return peak;
}

double measure_read_bandwidth(int num_threads, double seconds) {
  constexpr size_t kBytes = size_t{256} << 20;
  auto buffer = allocate_host(kBytes, "the bandwidth probe");
  if (!buffer) return 0.0;
  auto* data = reinterpret_cast<uint8_t*>(buffer->data());
  ThreadPool pool(num_threads, memory_nodes());
  // Which lead of the prefetch is best differs between processors, so each round takes another one: 0 stands for
  // the hardware alone.
  constexpr int64_t kPiece = 1 << 20;
  constexpr int64_t kAhead[] = {512, 1024, 2048, 8192, 0};
  place_by_parts(data, kBytes / kPiece, kPiece, pool);
  pool.parallel_for(kBytes, kPiece,
                    [&](int64_t begin, int64_t end, int) { std::fill(data + begin, data + end, uint8_t{1}); });
  std::vector<uint8_t> seen(kBytes / kPiece);
  const CpuKernels& kernels = cpu_kernels(detect_cpu_features().best());
  double best = 0.0;
  size_t round = 0;
  const auto first = Clock::now();
  while (round < std::size(kAhead) || seconds_since(first) < seconds) {
    const int64_t ahead = kAhead[round++ % std::size(kAhead)];
    const auto start = Clock::now();
    pool.parallel_for(kBytes, kPiece, [&](int64_t begin, int64_t end, int) {
      seen[static_cast<size_t>(begin / kPiece)] = kernels.read_lines(data + begin, end - begin, ahead);
    });
    best = std::max(best, static_cast<double>(kBytes) / seconds_since(start));
  }
  // What was read is used, so that the reads cannot be left out.
  return std::all_of(seen.begin(), seen.end(), [](uint8_t bits) { return bits <= 1; }) ? best / 1e9 : 0.0;
}

}  // namespace bise
