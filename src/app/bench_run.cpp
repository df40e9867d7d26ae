// `bise bench run`: prefill and decode of one model in one object, and `decode`, `prefill` and `batch`: the
// same figures by row, over contexts, lengths and numbers of sequences. Decode steps are held to the bandwidth just before and
// after them. The peak of arithmetic is measured between the rounds; there the best round of both sides counts for a
// share, so that a neighbour who takes half of the machine for a moment does not make a share.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <limits>
#include <memory>

#include "app/bench.h"
#include "app/bench_math.h"
#include "app/bench_model.h"
#include "app/machine.h"
#include "app/options.h"
#include "app/terminal.h"
#include "app/text_format.h"

namespace bise {
namespace {

struct BenchOptions {
  std::string model;
  std::vector<int64_t> contexts = {1, 1024, 4096}, lengths = {128, 512, 2048};
  std::vector<int> batches = {1, 2, 4, 8, 16};
  int64_t context = 1, prefill = 128, decode = 24;
  int batch = 1, reps = 3;
  bool json = false;
  CommonOptions common;
};

// What the rounds of one row gave.
struct Rounds {
  std::vector<double> seconds;  // of a prompt, or of one step
  double tflops = 0, peak_tflops = 0;  // of prompts: the best
  LimitedRates reads, streams;  // of steps, GB/s: bytes of weights and KV beside memory, streamed ones beside the disk
  double streamed_gb = 0;       // in a step

  // units / seconds: tokens per second of each round.
  Spread rates(double units) const {
    std::vector<double> rates;
    for (double time : seconds) rates.push_back(units / time);
    return spread_of(std::move(rates));
  }
};

void add_spread(Json& row, const std::string& name, const Spread& spread) {
  row[name + "_max"] = spread.max;
  row[name + "_median"] = spread.median;
  row[name + "_min"] = spread.min;
}
void add_prefill(Json& row, const ModelBench& bench, int64_t tokens, int batch, const Rounds& rounds) {
  row["prefill_tokens"] = tokens;
  add_spread(row, "prefill", rounds.rates(static_cast<double>(tokens * batch)));
  row["prefill_tflops"] = rounds.tflops;
  row["matrix_peak_tflops"] = rounds.peak_tflops;
  row["matrix_arithmetic"] = arithmetic_name(bench.arithmetic(tokens * batch));
  row["prefill_share"] = share_of(rounds.tflops, rounds.peak_tflops);
}
void add_rates(Json& row, const LimitedRates& rates, const std::string& name, const char* limit) {
  row[name + "_gb_s"] = rates.rates().median;
  row[limit] = rates.limits().median;
  add_shares(row, name, rates.shares());
}
void add_decode(Json& row, int64_t steps, int batch, const Rounds& rounds) {
  row["decode_tokens"] = steps;
  row["batch"] = batch;
  add_spread(row, "decode", rounds.rates(batch));
  add_rates(row, rounds.reads, "decode", "read_gb_s");
  if (rounds.streams.empty()) return;
  row["streamed_gb"] = rounds.streamed_gb;
  add_rates(row, rounds.streams, "stream", "disk_gb_s");
}

std::string share_text(const LimitedRates& rates) {
  auto number = [](double value) { return format_fixed(value, 2); };
  const Spread shares = rates.shares();
  return number(rates.rates().median) + " of " + number(rates.limits().median) + " GB/s, share " +
         number(shares.median) + " (" + number(shares.min) + " to " + number(shares.max) + ")\n";
}

// One round of a prompt of `tokens` for each of `batch` sequences.
Result<void> prefill_round(const ModelBench& bench, Engine& engine, int64_t tokens, int batch, Rounds& rounds) {
  const ModelBench::Running running = TRY(bench.prefill(engine, batch, tokens, 0));
  bench.finish(engine, running);
  rounds.seconds.push_back(running.prompt_seconds);
  const double tflops = batch * prefill_flops(bench.config(), tokens) / running.prompt_seconds / 1e12;
  rounds.tflops = std::max(rounds.tflops, tflops);
  rounds.peak_tflops = std::max(rounds.peak_tflops, bench.measure_matrix_peak(tokens * batch));
  return {};
}
// One round of `steps` steps of sequences that run. The bandwidth is read between some of them.
Result<void> decode_round(ModelBench& bench, Engine& engine, ModelBench::Running& running, int64_t steps,
                          Rounds& rounds) {
  // Seconds. Weights that stream come from the disk while the bandwidth is read, so that must wait for the end.
  const double between_reads = bench.streams() ? std::numeric_limits<double>::infinity() : 0.05;
  const int batch = static_cast<int>(running.ids.size());
  const double disk_before = bench.measure_disk();
  double total = 0, read_before = bench.read_bandwidth();
  for (int64_t done = 0; done < steps;) {
    double seconds = 0, bytes = 0;
    for (; done < steps && seconds < between_reads; ++done) {
      bytes += bench.step_bytes(engine, batch, running.tokens);
      seconds += TRY(bench.step(engine, running));
    }
    const double read_after = bench.read_bandwidth();
    rounds.reads.add(bytes / seconds / 1e9, read_before, read_after);
    read_before = read_after;
    total += seconds;
  }
  rounds.seconds.push_back(total / static_cast<double>(steps));
  if (bench.streams()) {
    rounds.streamed_gb = static_cast<double>(bench.session().model->memory_plan().streamed_bytes) / 1e9;
    rounds.streams.add(rounds.streamed_gb / rounds.seconds.back(), disk_before, bench.measure_disk());
  }
  return {};
}

// A first run touches what is only set up once: scratch memory, pages of the weights.
Result<void> warm_up(const ModelBench& bench, Engine& engine, int batch, int64_t tokens) {
  ModelBench::Running running = TRY(bench.prefill(engine, batch, std::min<int64_t>(tokens, 64), 2));
  for (int i = 0; i < 2; ++i) TRY(bench.step(engine, running));
  bench.finish(engine, running);
  return {};
}

// --- the commands

Result<int> bench_run(const BenchOptions& options) {
  ModelBench bench = TRY(ModelBench::open(options.model, options.common));
  auto engine = TRY(bench.engine(options.batch, options.prefill, options.decode));
  TRY(warm_up(bench, *engine, options.batch, options.prefill));
  Rounds prefill, decode;
  uint64_t peak_memory_bytes = 0;
  for (int rep = 0; rep < options.reps; ++rep) {
    // Prefill alone, then decode steps from a context of one token on.
    TRY(prefill_round(bench, *engine, options.prefill, options.batch, prefill));
    if (rep == 0) peak_memory_bytes = peak_memory();  // before the buffer of the bandwidth measurement
    ModelBench::Running running = TRY(bench.prefill(*engine, options.batch, 1, options.decode));
    TRY(decode_round(bench, *engine, running, options.decode, decode));
    bench.finish(*engine, running);
  }
  const Session& session = bench.session();
  Json row = bench.row();
  row["load_s"] = session.load_seconds;
  row["load_gb_s"] = static_cast<double>(session.checkpoint->total_bytes()) / session.load_seconds / 1e9;
  row["peak_rss_mb"] = static_cast<double>(peak_memory_bytes) / (1 << 20);
  add_prefill(row, bench, options.prefill, options.batch, prefill);
  add_decode(row, options.decode, options.batch, decode);
  if (options.json) {
    TRY(write_output(json_line(row)));
    return kExitDone;
  }
  const Spread p = prefill.rates(static_cast<double>(options.prefill * options.batch)), d = decode.rates(options.batch);
  TRY(write_output(
      session.path + ", " + row["format"].get<std::string>() + ", " + session.backend->description() + "\nload     " +
      format_fixed(session.load_seconds, 2) + " s, peak memory " + format_bytes(peak_memory_bytes) + "\nprefill  " +
      format_fixed(p.max, 1) + " tok/s best, " + format_fixed(p.median, 1) + " median, " +
      format_fixed(prefill.tflops, 3) + " of " + format_fixed(prefill.peak_tflops, 3) + " TFLOP/s (" +
      row["matrix_arithmetic"].get<std::string>() + ")\ndecode   " + format_fixed(d.max, 1) + " tok/s best, " +
      format_fixed(d.median, 1) + " median, " + share_text(decode.reads) +
      (decode.streams.empty()
           ? ""
           : "disk     " + format_fixed(decode.streamed_gb, 2) + " GB per step, " + share_text(decode.streams))));
  return kExitDone;
}

const TableColumn kFormatColumn = {"format", "format", 0, -8};
const std::vector<TableColumn> kDecodeColumns = {
    kFormatColumn,
    {"context", "context", 0}, {"batch", "batch", 0, 5}, {"decode_median", "tok/s", 2}, {"decode_min", "min", 2},
    {"decode_max", "max", 2}, {"decode_gb_s", "GB/s", 2}, {"read_gb_s", "of GB/s", 2}, {"decode_share", "share", 3, 6}};

// One prompt per context, and all rounds behind it: the context grows by the steps of the rounds.
Result<int> bench_decode(const BenchOptions& options) {
  ModelBench bench = TRY(ModelBench::open(options.model, options.common));
  RowWriter writer(kDecodeColumns, options.json);
  for (int64_t context : options.contexts) {
    const int64_t steps = options.decode * options.reps + 1;
    auto engine = TRY(bench.engine(options.batch, context, steps));
    ModelBench::Running running = TRY(bench.prefill(*engine, options.batch, context, steps));
    TRY(bench.step(*engine, running));
    Rounds rounds;
    for (int rep = 0; rep < options.reps; ++rep) TRY(decode_round(bench, *engine, running, options.decode, rounds));
    Json row = bench.row();
    row["context"] = context;
    add_decode(row, options.decode, options.batch, rounds);
    TRY(writer.write(row));
  }
  return kExitDone;
}

// Lengths take turns, so that a disturbance of the machine does not meet one of them alone.
Result<int> bench_prefill(const BenchOptions& options) {
  ModelBench bench = TRY(ModelBench::open(options.model, options.common));
  const int64_t longest = *std::max_element(options.lengths.begin(), options.lengths.end());
  auto engine = TRY(bench.engine(options.batch, longest, 2));
  TRY(warm_up(bench, *engine, options.batch, longest));
  std::vector<Rounds> rounds(options.lengths.size());
  for (int rep = 0; rep < options.reps; ++rep) {
    for (size_t i = 0; i < rounds.size(); ++i) {
      TRY(prefill_round(bench, *engine, options.lengths[i], options.batch, rounds[i]));
    }
  }
  RowWriter writer({kFormatColumn,
                    {"prefill_tokens", "tokens", 0}, {"batch", "batch", 0, 5}, {"prefill_median", "tok/s", 2},
                    {"prefill_min", "min", 2}, {"prefill_max", "max", 2}, {"prefill_tflops", "TFLOP/s", 3},
                    {"matrix_peak_tflops", "of peak", 3}, {"prefill_share", "share", 3, 6}},
                   options.json);
  for (size_t i = 0; i < rounds.size(); ++i) {
    Json row = bench.row();
    row["batch"] = options.batch;
    add_prefill(row, bench, options.lengths[i], options.batch, rounds[i]);
    TRY(writer.write(row));
  }
  return kExitDone;
}

// t(b) / t(1): the time of a step of b sequences over that of one, from rounds that take turns.
Result<int> bench_batch(BenchOptions options) {
  ModelBench bench = TRY(ModelBench::open(options.model, options.common));
  std::vector<int>& batches = options.batches;
  const bool told = std::find(batches.begin(), batches.end(), 1) != batches.end();
  if (!told) batches.insert(batches.begin(), 1);
  std::vector<Rounds> rounds(batches.size());
  const int most = *std::max_element(batches.begin(), batches.end());
  auto engine = TRY(bench.engine(most, options.context, options.decode + 1));
  TRY(warm_up(bench, *engine, most, options.context));
  for (int rep = 0; rep < options.reps; ++rep) {
    for (size_t i = 0; i < rounds.size(); ++i) {
      ModelBench::Running running = TRY(bench.prefill(*engine, batches[i], options.context, options.decode + 1));
      TRY(bench.step(*engine, running));
      TRY(decode_round(bench, *engine, running, options.decode, rounds[i]));
      bench.finish(*engine, running);
    }
  }
  std::vector<TableColumn> columns = kDecodeColumns;
  columns.push_back({"step_ms", "ms/step", 2});
  columns.push_back({"time_ratio", "t(b)/t(1)", 3});
  RowWriter writer(columns, options.json);
  const size_t one = static_cast<size_t>(std::find(batches.begin(), batches.end(), 1) - batches.begin());
  for (size_t i = told ? 0 : 1; i < rounds.size(); ++i) {
    Json row = bench.row();
    row["context"] = options.context;
    add_decode(row, options.decode, batches[i], rounds[i]);
    row["step_ms"] = spread_of(rounds[i].seconds).median * 1e3;
    row["time_ratio"] = ratios_of(rounds[i].seconds, rounds[one].seconds).median;
    TRY(writer.write(row));
  }
  return kExitDone;
}

// --- options

constexpr int64_t kMaxTokens = 1 << 20;
constexpr int kMaxBatch = 256;

using Run = Result<int> (*)(const BenchOptions&);

struct Command {
  CLI::App* app;
  std::shared_ptr<BenchOptions> options;
};
Command add_command(CLI::App& bench, const char* name, const char* text) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* command = bench.add_subcommand(name, text);
  command->add_option("MODEL", options->model, "the model")->required();
  command->add_option("--reps", options->reps, "rounds; the best, the median and the worst are told")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  command->add_flag("--json", options->json, "print JSON objects, one per line");
  return {command, options};
}
void add_tokens(CLI::App& command, const char* name, int64_t& value, const char* text) {
  command.add_option(name, value, text)->check(CLI::Range(int64_t{1}, kMaxTokens))->capture_default_str();
}
template <class T>
void add_list(CLI::App& command, const char* name, std::vector<T>& values, const char* text, int64_t most) {
  command.add_option(name, values, text)
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, most))
      ->capture_default_str();
}
void add_batch(CLI::App& command, BenchOptions& options) {
  command.add_option("--batch", options.batch, "sequences at the same time")
      ->check(CLI::Range(1, kMaxBatch))
      ->capture_default_str();
}

}  // namespace

void add_bench_run(CLI::App& bench, Action& action) {
  auto [command, options] = add_command(bench, "run", "load once, then rounds of prefill and decode");
  add_tokens(*command, "--prefill", options->prefill, "tokens of the prompt");
  add_tokens(*command, "--decode", options->decode, "decode steps after it");
  add_batch(*command, *options);
  add_common_options(*command, options->common);
  command->footer(
      "decode_share: bytes of weights and KV that a step reads, over time, over the read bandwidth just before and\n"
      "after; the median of steps of 50 ms together. Decoding starts from an empty context. prefill_share: FLOPs of\n"
      "the linear layers, of attention and of the head on the last row, over time, over the measured peak of the\n"
      "arithmetic that the format's products use (matrix_arithmetic); of both sides the best round counts.");
  command->callback([options = options, &action] { action = [options] { return bench_run(*options); }; });
}

void add_bench_rows(CLI::App& bench, Action& action) {
  {
    auto [command, options] = add_command(bench, "decode", "decode steps at several contexts");
    add_list(*command, "--contexts", options->contexts, "tokens in the cache at the beginning", kMaxTokens);
    add_tokens(*command, "--decode", options->decode, "steps of one round; the context grows by them");
    add_batch(*command, *options);
    add_common_options(*command, options->common);
    command->callback([options = options, &action] { action = [options] { return bench_decode(*options); }; });
  }
  {
    auto [command, options] = add_command(bench, "prefill", "prompts of several lengths");
    add_list(*command, "--lengths", options->lengths, "tokens of the prompts", kMaxTokens);
    add_batch(*command, *options);
    add_common_options(*command, options->common);
    command->callback([options = options, &action] { action = [options] { return bench_prefill(*options); }; });
  }
  {
    auto [command, options] = add_command(bench, "batch", "sequences that decode together, against one alone");
    add_list(*command, "--batches", options->batches, "numbers of sequences", kMaxBatch);
    add_tokens(*command, "--context-tokens", options->context, "tokens of each in the cache at the beginning");
    add_tokens(*command, "--decode", options->decode, "steps of one round");
    add_common_options(*command, options->common);
    command->callback([options = options, &action] { action = [options] { return bench_batch(*options); }; });
  }
}

}  // namespace bise
