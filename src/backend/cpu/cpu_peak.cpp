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

namespace {

class HostReadProbe : public ReadProbe {
 public:
  HostReadProbe(int num_threads, double seconds);
  double read() override { return read(ahead_); }
  double best() const override { return best_; }
  uint64_t bytes() const override { return static_cast<uint64_t>(bytes_); }

 private:
  static constexpr int64_t kPiece = 1 << 20;
  // Which lead is best differs between processors; 0 stands for the hardware alone.
  static constexpr int64_t kAhead[] = {512, 1024, 2048, 8192, 0};

  double read(int64_t lead);

  ThreadPool pool_;
  Buffer buffer_;
  int64_t bytes_ = 0;
  std::vector<uint8_t> seen_;
  const CpuKernels& kernels_ = cpu_kernels(detect_cpu_features().best());
  int64_t ahead_ = 0;
  double best_ = 0.0;
};

HostReadProbe::HostReadProbe(int num_threads, double seconds) : pool_(num_threads, memory_nodes()) {
  constexpr int64_t kLeast = 256 * kPiece,
                    kThread = 16 * kPiece;  // 16 MiB: more than any processor's share of its last cache
  const int64_t size = std::max(kLeast, pool_.num_threads() * kThread);
  auto taken = allocate_host(static_cast<size_t>(size), "the bandwidth probe");
  if (!taken) return;
  buffer_ = std::move(*taken);
  bytes_ = size;
  auto* data = reinterpret_cast<uint8_t*>(buffer_.data());
  place_by_parts(data, static_cast<size_t>(size / kPiece), kPiece, pool_);
  pool_.parallel_for(size, kPiece,
                     [&](int64_t begin, int64_t end, int) { std::fill(data + begin, data + end, uint8_t{1}); });
  seen_.resize(static_cast<size_t>(size / kPiece));
  // The leads take turns, and the best median counts: the best round would be that of a good moment.
  std::vector<double> rates[std::size(kAhead)];
  const auto start = Clock::now();
  do {
    for (size_t i = 0; i < std::size(kAhead); ++i) rates[i].push_back(read(kAhead[i]));
  } while (seconds_since(start) < seconds);
  double best = 0.0;
  for (size_t i = 0; i < std::size(kAhead); ++i) {
    const auto middle = rates[i].begin() + std::ssize(rates[i]) / 2;
    std::nth_element(rates[i].begin(), middle, rates[i].end());
    if (*middle <= best) continue;
    best = *middle;
    ahead_ = kAhead[i];
  }
}

double HostReadProbe::read(int64_t lead) {
  const auto* data = reinterpret_cast<const uint8_t*>(buffer_.data());
  const auto start = Clock::now();
  pool_.parallel_for(bytes_, kPiece, [&](int64_t begin, int64_t end, int) {
    seen_[static_cast<size_t>(begin / kPiece)] = kernels_.read_lines(data + begin, end - begin, lead);
  });
  const double rate = static_cast<double>(bytes_) / seconds_since(start) / 1e9;
  // What was read is used, so that the reads cannot be left out.
  if (bytes_ == 0 || !std::all_of(seen_.begin(), seen_.end(), [](uint8_t bits) { return bits <= 1; })) return 0.0;
  best_ = std::max(best_, rate);
  return rate;
}

}  // namespace

std::unique_ptr<ReadProbe> probe_host_reads(int num_threads, double seconds) {
  return std::make_unique<HostReadProbe>(num_threads, seconds);
}

double measure_read_bandwidth(int num_threads, double seconds) {
  return probe_host_reads(num_threads, seconds)->best();
}

}  // namespace bise
