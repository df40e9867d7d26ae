// Tekken: bytes per second of encoding on ordinary and on hostile text, and the time to load a file.
// Needs the golden tokenizer file of the tests; no model.
#include <benchmark/benchmark.h>

#include "support/golden_tekken.h"

namespace bise {
namespace {

std::string repeated(std::string_view unit, size_t num_bytes) {
  std::string text;
  while (text.size() < num_bytes) text += unit;
  return text;
}

void encode(benchmark::State& state, std::string_view unit) {
  const Tekken& tekken = testing::golden_tekken();
  std::string text = repeated(unit, 1 << 20);
  std::vector<TokenId> ids;
  for (auto _ : state) {
    ids.clear();
    tekken.encode(text, ids);
    benchmark::DoNotOptimize(ids.data());
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text.size()));
  state.counters["tokens"] = static_cast<double>(ids.size());
}

void load(benchmark::State& state) {
  std::string json = testing::gunzip_file(BISE_GOLDEN_DIR "/chat/tekken.json.gz");
  for (auto _ : state) benchmark::DoNotOptimize(Tekken::parse(json, "tekken.json"));
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * json.size()));
}

constexpr char kEnglish[] =
    "The harbour was quiet that morning, and nobody noticed the small boat until it had already "
    "passed the lighthouse; by then its owner, an elderly clockmaker, was halfway to the island.\n\n";
constexpr char kCode[] =
    "  for (int64_t i = 0; i < num_rows; ++i) {\n    sum += weights[i] * float(x[i]);  // O(n)\n  }\n"
    "  if (!std::isfinite(sum)) return Error(ErrorCode::corrupt, \"row \" + std::to_string(i));\n";
constexpr char kChinese[] = "清晨的港口很安静，直到小船驶过灯塔，才有人注意到它。船主是一位年老的钟表匠。\n";
constexpr char kHindi[] = "सुबह बंदरगाह शांत था और किसी ने छोटी नाव पर ध्यान नहीं दिया।\n";

BENCHMARK(load)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, english, kEnglish)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, code, kCode)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, chinese, kChinese)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, hindi, kHindi)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, one_letter, "a")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, capitals, "A")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, blanks, " ")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, combining_marks, "\u0301")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, dashes, "-")->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace bise
