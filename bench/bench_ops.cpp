// The op cases of the conformance test, and products and attention of real sizes for 1 and 512 tokens:
// GB/s and GFLOP/s beside the read bandwidth of the machine. `bench_ops --list` prints which formats
// have tiles of their own and which are decoded row by row. Threads and instruction set by
// --threads=N and --isa=NAME; the rest are Google Benchmark's options.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/packed_weight.h"
#include "support/op_cases.h"

namespace bise::test {
namespace {

void print_formats() {
  std::printf("%-12s %8s   %s\n", "format", "bits", "on the CPU");
  for (const PartCase& part : every_format(16)) {
    RandomWeights weights({part}, 256, 1);
    const auto tiles = tile_format_of(weights.views()[0]);
    const WeightFormat& format = weight_format(part.format);
    std::printf("%-12s %8.2f   ", part_name(part).c_str(), 8.0 * format.block_bytes / format.block_elements);
    if (!tiles) std::printf("decoded row by row\n");
    else std::printf("%s tiles, %.2f bits\n", tiles->integer ? "integer" : "float", static_cast<double>(tiles->tile_bytes(256)) * 8 / 16 / 256);
  }
}

double multiply_adds(const OpCase& c) {
  double count = 0.0;
  for (const PartCase& part : c.parts) count += static_cast<double>(c.tokens * c.columns * part.rows);
  if (c.op == Op::embed) return 0.0;
  for (const SequenceCase& s : c.sequences) {
    const double keys = c.op == Op::attention ? s.num_tokens - (s.num_rows - 1) / 2.0 : s.num_rows;
    const double seen = c.sliding_window > 0 && c.sliding_window < keys ? c.sliding_window : keys;
    count += 2.0 * s.num_rows * seen * c.num_heads * c.head_dim;
  }
  return count;
}

void time_case(benchmark::State& state, Backend& backend, const OpCase& c) {
  OpRun run(backend, c, 1);
  run.run();
  for (auto _ : state) run.run();
  using benchmark::Counter;
  const double work = multiply_adds(c);
  const double activations = static_cast<double>((run.input().size() + run.output().size()) * sizeof(float));
  const double weights = c.op == Op::matmul ? static_cast<double>(run.weight().bytes) : 0.0;
  const double cache = static_cast<double>(run.keys().size() + run.values().size());
  state.counters["GB/s"] = Counter((weights + cache + activations) / 1e9, Counter::kIsIterationInvariantRate);
  if (work > 0.0) state.counters["GFLOP/s"] = Counter(2.0 * work / 1e9, Counter::kIsIterationInvariantRate);
}

// 12288 columns are the widest of the family; 4096 rows keep every format out of the caches.
std::vector<OpCase> real_cases() {
  std::vector<OpCase> cases;
  for (int64_t tokens : {1, 512}) {
    for (const PartCase& part : every_format(tokens == 1 ? 4096 : 512)) {
      cases.push_back({.op = Op::matmul, .tokens = tokens, .columns = 12288, .parts = {part}});
    }
  }
  for (int32_t rows : {1, 512}) {
    cases.push_back({.op = Op::attention, .tokens = rows, .columns = 48 * 128, .num_heads = 32, .num_kv_heads = 8,
                     .head_dim = 128, .kv = KvDType::bf16, .sequences = {{0, 4096, rows}}});
  }
  cases.push_back({.op = Op::attention_full, .tokens = 1024, .columns = 3 * 1024, .num_heads = 16, .num_kv_heads = 16,
                   .head_dim = 64, .sequences = {{0, 0, 1024}}});
  cases.push_back({.op = Op::rms_norm, .tokens = 512, .columns = 12288});
  cases.push_back({.op = Op::gated_activation, .tokens = 512, .columns = 2 * 12288});
  return cases;
}

// The value of "--name=value" among the arguments, which forgets it.
std::string take_option(int* argc, char** argv, const std::string& name, std::string value) {
  int kept = 1;
  for (int i = 1; i < *argc; ++i) {
    const std::string argument = argv[i];
    if (argument.rfind("--" + name + "=", 0) == 0) value = argument.substr(name.size() + 3);
    else argv[kept++] = argv[i];
  }
  *argc = kept;
  return value;
}

}  // namespace
}  // namespace bise::test

int main(int argc, char** argv) {
  using namespace bise;
  if (argc == 2 && std::string(argv[1]) == "--list") {
    test::print_formats();
    return 0;
  }
  BackendOptions options;
  options.num_threads = std::atoi(test::take_option(&argc, argv, "threads", "0").c_str());
  options.isa = test::take_option(&argc, argv, "isa", "auto");
  auto backend = create_cpu_backend(options);
  if (!backend) {
    std::fprintf(stderr, "bench_ops: %s\n", backend.error().message().c_str());
    return 2;
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::AddCustomContext("backend", (*backend)->description());
  benchmark::AddCustomContext("read bandwidth, GB/s", std::to_string(measure_read_bandwidth((*backend)->num_threads(), 0.5)));
  auto add = [&](const std::string& prefix, const test::OpCase& c) {
    benchmark::RegisterBenchmark((prefix + test::case_name(c)).c_str(), [&backend, c](benchmark::State& state) {
      test::time_case(state, **backend, c);
    })->UseRealTime();
  };
  for (const test::OpCase& c : test::real_cases()) add("real/", c);
  for (const test::OpCase& c : test::op_cases()) add("table/", c);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
