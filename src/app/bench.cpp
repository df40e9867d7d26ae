// `bise bench run`: the speed of one model beside the read bandwidth of the machine, all figures
// from the same process and minute.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <map>
#include <memory>

#include "app/commands.h"
#include "app/machine.h"
#include "app/options.h"
#include "app/session.h"
#include "app/terminal.h"
#include "app/text_format.h"
#include "base/json.h"
#include "base/random.h"
#include "tensor/weight_format.h"

namespace bise {
namespace {

struct BenchOptions {
  std::string model;
  int prefill = 128, decode = 24, reps = 2, batch = 1;
  bool json = false;
  CommonOptions common;
};

// Ordinary ids; which ones does not matter for the work they make.
std::vector<int32_t> prompt_ids(const ModelConfig& config, int count, int sequence) {
  std::vector<int32_t> ids;
  int32_t first = std::min(config.vocab_size / 2, 1000);  // behind the control tokens
  for (int i = 0; i < count; ++i) {
    uint64_t bits = random_bits(1, static_cast<uint64_t>(sequence), static_cast<uint64_t>(i));
    ids.push_back(first +
                  static_cast<int32_t>(bits % static_cast<uint64_t>(config.vocab_size - first)));
  }
  return ids;
}

// Seconds of `batch` sequences with prompts and answers of these lengths, from the first to the
// last token of all: `prompt` until each has one token, `decode` for the steps after that.
struct Seconds {
  double prompt = 0, decode = 0;
};
Result<Seconds> run_batch(Session& session, int batch, int prompt_tokens, int answer_tokens) {
  for (int i = 0; i < batch; ++i) {
    NewSequence sequence;
    sequence.ids = prompt_ids(session.model->config(), prompt_tokens, i);
    sequence.params.temperature = 0.0;
    sequence.params.ignore_eos = true;
    sequence.params.max_tokens = answer_tokens;
    TRY(session.engine->submit(std::move(sequence)));
  }
  Seconds seconds;
  double start = now_seconds(), prompts_done = start;
  int waiting = batch;
  while (!session.engine->idle()) {
    if (interrupted()) return Error(ErrorCode::cancelled, "interrupted");
    int started = 0;
    for (const SequenceEvent& event : session.engine->step()) {
      if (event.error) return *event.error;
      if (event.token) ++started;
    }
    if (waiting == 0) continue;
    waiting -= std::min(started, waiting);
    prompts_done = now_seconds();
  }
  seconds.prompt = prompts_done - start;
  seconds.decode = now_seconds() - prompts_done;
  return seconds;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  size_t n = values.size();
  return n == 0 ? 0 : n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}
double highest(const std::vector<double>& values) {
  return values.empty() ? 0 : *std::max_element(values.begin(), values.end());
}

// Multiplications and additions of the linear layers and of attention, per prompt token; the head
// runs on the last row only and is left out.
double prefill_flops_per_token(const ModelConfig& c, int tokens) {
  double hidden = c.hidden_size, head_dim = c.head_dim;
  double qkv = hidden * head_dim * (c.num_heads + 2.0 * c.num_kv_heads);
  double out = hidden * head_dim * c.num_heads;
  double mlp = 3.0 * hidden * c.intermediate_size;
  double attention = 4.0 * c.num_heads * head_dim * (tokens + 1) / 2.0;
  return c.num_layers * (2.0 * (qkv + out + mlp) + attention);
}

// The format that holds most bytes.
std::string main_format(const Checkpoint& checkpoint) {
  std::map<std::string, uint64_t> bytes;
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    const WeightFormat* format =
        tensor.dtype == DType::block ? weight_format_of_ggml(tensor.ggml_type) : nullptr;
    bytes[std::string(format != nullptr ? format->name : dtype_name(tensor.dtype))] +=
        tensor.bytes.size();
  }
  auto most = std::max_element(bytes.begin(), bytes.end(),
                               [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == bytes.end() ? "" : most->first;
}

Result<int> bench_run(const BenchOptions& options) {
  constexpr double kBandwidthSeconds = 0.2;
  std::unique_ptr<Session> session =
      TRY(open_session(options.model, {options.common, false}, make_log(options.common.log_level)));
  const ModelConfig& config = session->model->config();
  int threads = session->backend->num_threads();
  // A first run touches what is only set up once: cache blocks, scratch memory, pages of the
  // weights.
  TRY(run_batch(*session, options.batch, std::min(options.prefill, 64), 2));
  std::vector<double> prefill, decode, read;
  uint64_t peak = 0;
  for (int rep = 0; rep < options.reps; ++rep) {
    // Prefill alone, then decode steps from a context of one token on.
    Seconds first = TRY(run_batch(*session, options.batch, options.prefill, 1));
    Seconds second = TRY(run_batch(*session, options.batch, 1, options.decode + 1));
    prefill.push_back(options.prefill * options.batch / first.prompt);
    decode.push_back(options.decode * options.batch / second.decode);
    if (rep == 0) peak = peak_memory();  // before the buffer of the bandwidth measurement
    read.push_back(measure_read_bandwidth(threads, kBandwidthSeconds));
  }
  int64_t middle = 1 + options.decode / 2;
  double step_bytes = static_cast<double>(session->model->step_bytes()) +
                      options.batch * static_cast<double>(session->engine->kv_step_bytes(middle));
  double decode_gb_s = step_bytes * highest(decode) / options.batch / 1e9;
  double tflops = prefill_flops_per_token(config, options.prefill) * highest(prefill) / 1e12;
  Json json = {{"model", session->path},
               {"format", main_format(*session->checkpoint)},
               {"threads", threads},
               {"isa", session->backend->isa()},
               {"load_s", session->load_seconds},
               {"load_gb_s", static_cast<double>(session->checkpoint->total_bytes()) /
                                 session->load_seconds / 1e9},
               {"peak_rss_mb", static_cast<double>(peak) / (1 << 20)},
               {"prefill_tokens", options.prefill},
               {"prefill_max", highest(prefill)},
               {"prefill_median", median(prefill)},
               {"prefill_tflops", tflops},
               {"decode_tokens", options.decode},
               {"batch", options.batch},
               {"decode_max", highest(decode)},
               {"decode_median", median(decode)},
               {"decode_gb_s", decode_gb_s},
               {"read_gb_s", highest(read)},
               {"decode_share", highest(read) > 0 ? decode_gb_s / highest(read) : 0}};
  if (options.json) {
    TRY(write_output(json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"));
    return kExitDone;
  }
  TRY(write_output(session->path + ", " + session->backend->description() + "\nload     " +
                   format_fixed(session->load_seconds, 2) + " s, peak memory " +
                   format_bytes(peak) + "\nprefill  " + format_fixed(highest(prefill), 1) +
                   " tok/s best, " + format_fixed(median(prefill), 1) + " median, " +
                   format_fixed(tflops, 3) + " TFLOP/s\ndecode   " +
                   format_fixed(highest(decode), 1) + " tok/s best, " +
                   format_fixed(median(decode), 1) + " median, " + format_fixed(decode_gb_s, 2) +
                   " GB/s of " + format_fixed(highest(read), 2) + " GB/s\n"));
  return kExitDone;
}

}  // namespace

void add_bench_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* bench = app.add_subcommand("bench", "speed, beside the measured limit of the machine");
  bench->require_subcommand(1);
  CLI::App* command = bench->add_subcommand("run", "load once, then rounds of prefill and decode");
  command->add_option("MODEL", options->model, "the model")->required();
  command->add_option("--prefill", options->prefill, "tokens of the prompt")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--decode", options->decode, "decode steps after it")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--reps", options->reps, "rounds; the best and the median are told")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  command->add_option("--batch", options->batch, "sequences at the same time")
      ->check(CLI::Range(1, 16))
      ->capture_default_str();
  command->add_flag("--json", options->json, "print one JSON object");
  add_common_options(*command, options->common);
  command->footer(
      "decode_share: bytes of weights and KV that a step reads, over time, over the read "
      "bandwidth\n"
      "measured between the rounds; decoding starts from an empty context.\n"
      "The peak of matrix arithmetic is not measured, so\n"
      "matrix_peak_tflops and prefill_share are not told.");
  command->callback([options, &action] { action = [options] { return bench_run(*options); }; });
}

}  // namespace bise
