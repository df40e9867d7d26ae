// `bise bench run`: prefill and decode of one model in one object, and `decode`, `prefill` and `batch`: the
// same figures by row, over contexts, lengths and numbers of sequences. The peaks are measured
// between the rounds; of both sides the best round counts for a share, so that a neighbour who takes half of
// the machine for a moment does not make a share.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
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
  std::vector<double> peaks;    // GB/s or TFLOP/s
  double work = 0;              // bytes or FLOPs of the best round
  double best = 0;              // work per second
  // Of weights that stream: GB from the disk in a step; of each round what the stream gave, and the disk's own
  // rate just before and after, in GB/s. A shared disk changes by half within a minute, so only neighbours compare.
  double streamed_gb = 0;
  std::vector<double> streams, disks;

  void add(double time, double done) {
    seconds.push_back(time);
    if (done / time > best) {
      best = done / time;
      work = done;
    }
  }
  double peak() const { return peaks.empty() ? 0 : *std::max_element(peaks.begin(), peaks.end()); }
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
  row["prefill_tflops"] = rounds.best / 1e12;
  row["matrix_peak_tflops"] = rounds.peak();
  row["matrix_arithmetic"] = arithmetic_name(bench.arithmetic(tokens * batch));
  row["prefill_share"] = share_of(rounds.best / 1e12, rounds.peak());
}
// What streaming weights gave, and of the disk's own rate in the same moments.
void add_stream(Json& row, const Rounds& rounds) {
  if (rounds.streams.empty()) return;
  std::vector<double> shares;
  for (size_t i = 0; i < rounds.streams.size(); ++i) shares.push_back(share_of(rounds.streams[i], rounds.disks[i]));
  row["streamed_gb"] = rounds.streamed_gb;
  row["stream_gb_s"] = spread_of(rounds.streams).median;
  row["disk_gb_s"] = spread_of(rounds.disks).median;
  const Spread share = spread_of(std::move(shares));
  row["stream_share"] = share.median;
  row["stream_share_min"] = share.min;
  row["stream_share_max"] = share.max;
}
void add_decode(Json& row, int64_t steps, int batch, const Rounds& rounds) {
  row["decode_tokens"] = steps;
  row["batch"] = batch;
  add_spread(row, "decode", rounds.rates(batch));
  row["decode_gb_s"] = rounds.best / 1e9;
  row["read_gb_s"] = rounds.peak();
  row["decode_share"] = share_of(rounds.best / 1e9, rounds.peak());
  add_stream(row, rounds);
}

std::string stream_text(const Json& row) {
  if (!row.contains("stream_gb_s")) return "";
  auto number = [&](const char* name) { return format_fixed(row[name].get<double>(), 2); };
  return "disk     " + number("streamed_gb") + " GB per step, " + number("stream_gb_s") + " of " + number("disk_gb_s") +
         " GB/s, share " + number("stream_share") + " (" + number("stream_share_min") + " to " +
         number("stream_share_max") + ")\n";
}

// One round of a prompt of `tokens` for each of `batch` sequences.
Result<void> prefill_round(const ModelBench& bench, Engine& engine, int64_t tokens, int batch, Rounds& rounds) {
  const ModelBench::Running running = TRY(bench.prefill(engine, batch, tokens, 0));
  bench.finish(engine, running);
  rounds.add(running.prompt_seconds, batch * prefill_flops(bench.config(), tokens));
  rounds.peaks.push_back(bench.measure_matrix_peak(tokens * batch));
  return {};
}
// One round of `steps` steps of sequences that run.
Result<void> decode_round(const ModelBench& bench, Engine& engine, ModelBench::Running& running, int64_t steps,
                          Rounds& rounds) {
  const double before = running.tokens;
  const double disk_before = bench.measure_disk();
  const double seconds = TRY(bench.decode(engine, running, steps));
  if (bench.streams()) {
    rounds.streamed_gb = static_cast<double>(bench.session().model->memory_plan().streamed_bytes) / 1e9;
    rounds.streams.push_back(rounds.streamed_gb / seconds);
    rounds.disks.push_back((disk_before + bench.measure_disk()) / 2);
  }
  const int batch = static_cast<int>(running.ids.size());
  rounds.add(seconds, bench.step_bytes(engine, batch, (before + running.tokens) / 2));
  rounds.peaks.push_back(bench.measure_read());
  return {};
}

// A first run touches what is only set up once: scratch memory, pages of the weights.
Result<void> warm_up(const ModelBench& bench, Engine& engine, int batch, int64_t tokens) {
  ModelBench::Running running = TRY(bench.prefill(engine, batch, std::min<int64_t>(tokens, 64), 2));
  TRY(bench.decode(engine, running, 2));
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
      session.path + ", " + row["format"].get<std::string>() + ", " + session.backend->description() +
      "\nload     " + format_fixed(session.load_seconds, 2) + " s, peak memory " + format_bytes(peak_memory_bytes) +
      "\nprefill  " + format_fixed(p.max, 1) + " tok/s best, " + format_fixed(p.median, 1) + " median, " +
      format_fixed(prefill.best / 1e12, 3) + " of " + format_fixed(prefill.peak(), 3) + " TFLOP/s (" +
      row["matrix_arithmetic"].get<std::string>() + ")\ndecode   " + format_fixed(d.max, 1) + " tok/s best, " +
      format_fixed(d.median, 1) + " median, " + format_fixed(decode.best / 1e9, 2) + " of " +
      format_fixed(decode.peak(), 2) + " GB/s\n" + stream_text(row)));
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
    TRY(bench.decode(*engine, running, 1));
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
      TRY(bench.decode(*engine, running, 1));
      TRY(decode_round(bench, *engine, running, options.decode, rounds[i]));
      bench.finish(*engine, running);
    }
  }
  std::vector<TableColumn> columns = kDecodeColumns;
  columns.push_back({"step_ms", "ms/step", 2});
  columns.push_back({"time_ratio", "t(b)/t(1)", 3});
  RowWriter writer(columns, options.json);
  const size_t one = static_cast<size_t>(std::find(batches.begin(), batches.end(), 1) - batches.begin());
  const double alone = spread_of(rounds[one].seconds).median;
  for (size_t i = told ? 0 : 1; i < rounds.size(); ++i) {
    Json row = bench.row();
    row["context"] = options.context;
    add_decode(row, options.decode, batches[i], rounds[i]);
    const double step = spread_of(rounds[i].seconds).median;
    row["step_ms"] = step * 1e3;
    row["time_ratio"] = step / alone;
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
      "decode_share: bytes of weights and KV that a step reads, over time, over the read bandwidth measured\n"
      "between the rounds; decoding starts from an empty context. prefill_share: FLOPs of the linear layers,\n"
      "of attention and of the head on the last row, over time, over the measured peak of the arithmetic that\n"
      "the format's products use (matrix_arithmetic). Of both sides the best round counts.");
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
