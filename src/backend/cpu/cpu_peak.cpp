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

struct ReadProbe::State {
  static constexpr int64_t kPiece = 1 << 20;
  // Which lead is best differs between processors; 0 stands for the hardware alone.
  static constexpr int64_t kAhead[] = {512, 1024, 2048, 8192, 0};

  explicit State(int num_threads) : pool(num_threads, memory_nodes()) {
    constexpr int64_t kLeast = 256 * kPiece,
                      kThread = 16 * kPiece;  // 16 MiB: more than any processor's share of its last cache
    const int64_t size = std::max(kLeast, pool.num_threads() * kThread);
    auto taken = allocate_host(static_cast<size_t>(size), "the bandwidth probe");
    if (!taken) return;
    buffer = std::move(*taken);
    bytes = size;
    auto* data = reinterpret_cast<uint8_t*>(buffer.data());
    place_by_parts(data, static_cast<size_t>(size / kPiece), kPiece, pool);
    pool.parallel_for(size, kPiece,
                      [&](int64_t begin, int64_t end, int) { std::fill(data + begin, data + end, uint8_t{1}); });
    seen.resize(static_cast<size_t>(size / kPiece));
  }

  double read(int64_t lead) {
    const auto* data = reinterpret_cast<const uint8_t*>(buffer.data());
    const auto start = Clock::now();
    pool.parallel_for(bytes, kPiece, [&](int64_t begin, int64_t end, int) {
      seen[static_cast<size_t>(begin / kPiece)] = kernels.read_lines(data + begin, end - begin, lead);
    });
    const double rate = static_cast<double>(bytes) / seconds_since(start) / 1e9;
    // What was read is used, so that the reads cannot be left out.
    if (bytes == 0 || !std::all_of(seen.begin(), seen.end(), [](uint8_t bits) { return bits <= 1; })) return 0.0;
    best = std::max(best, rate);
    return rate;
  }

  ThreadPool pool;
  Buffer buffer;
  int64_t bytes = 0;
  std::vector<uint8_t> seen;
  const CpuKernels& kernels = cpu_kernels(detect_cpu_features().best());
  int64_t ahead = 0;
  double best = 0.0;
};

ReadProbe::ReadProbe(int num_threads, double seconds) : state_(std::make_unique<State>(num_threads)) {
  // The leads take turns, and the best median counts: the best round would be that of a good moment.
  constexpr size_t kLeads = std::size(State::kAhead);
  std::vector<double> rates[kLeads];
  const auto start = Clock::now();
  do {
    for (size_t i = 0; i < kLeads; ++i) rates[i].push_back(state_->read(State::kAhead[i]));
  } while (seconds_since(start) < seconds);
  double best = 0.0;
  for (size_t i = 0; i < kLeads; ++i) {
    const auto middle = rates[i].begin() + std::ssize(rates[i]) / 2;
    std::nth_element(rates[i].begin(), middle, rates[i].end());
    if (*middle <= best) continue;
    best = *middle;
    state_->ahead = State::kAhead[i];
  }
}
ReadProbe::~ReadProbe() = default;
ReadProbe::ReadProbe(ReadProbe&&) noexcept = default;
ReadProbe& ReadProbe::operator=(ReadProbe&&) noexcept = default;

double ReadProbe::read() { return state_->read(state_->ahead); }
double ReadProbe::best() const { return state_->best; }
uint64_t ReadProbe::bytes() const { return static_cast<uint64_t>(state_->bytes); }

double measure_read_bandwidth(int num_threads, double seconds) { return ReadProbe(num_threads, seconds).best(); }

}  // namespace bise
