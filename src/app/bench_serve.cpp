// `bise bench serve`: load on any OpenAI-compatible server. Options and JSON names of `vllm bench serve`
// where they mean the same.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <random>

#include "app/bench.h"
#include "app/bench_serve_client.h"
#include "app/bench_serve_report.h"
#include "app/terminal.h"
#include "base/file.h"
#include "base/random.h"

namespace bise {
namespace {

struct ServeBenchOptions {
  std::string base_url = "http://127.0.0.1:8000", backend = "openai-chat", endpoint, model, dataset, extra_body;
  std::vector<std::string> headers, goodput;
  std::string metrics = "ttft,tpot,itl", percentiles = "99", request_rate = "inf", result_file;
  int num_prompts = 100, max_concurrency = 0, num_warmups = 1;
  int64_t input_len = 512, output_len = 128, prefix_len = 0;
  double burstiness = 1, range_ratio = 0;
  uint64_t seed = 0;
  bool ignore_eos = false, json = false, detailed = false, insecure = false;

  bool is_chat() const { return backend == "openai-chat"; }
};

Error wrong(const std::string& text) { return Error(ErrorCode::invalid_argument, text); }

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> out;
  for (size_t from = 0; from <= text.size();) {
    const size_t end = std::min(text.find(',', from), text.size());
    if (end > from) out.push_back(text.substr(from, end - from));
    from = end + 1;
  }
  return out;
}

Result<double> number_of(const std::string& text, const std::string& option) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !std::isfinite(value) || value < 0) return wrong(option + ": \"" + text + "\" is no number");
  return value;
}

Result<ServeReportOptions> report_options(const ServeBenchOptions& options) {
  ServeReportOptions out;
  out.detailed = options.detailed;
  out.metrics = split(options.metrics);
  for (const std::string& name : out.metrics) {
    if (name != "ttft" && name != "tpot" && name != "itl" && name != "e2el") {
      return wrong("--percentile-metrics: " + name + " is not one of ttft, tpot, itl, e2el");
    }
  }
  out.percentiles.clear();
  for (const std::string& text : split(options.percentiles)) {
    out.percentiles.push_back(TRY(number_of(text, "--metric-percentiles")));
    if (out.percentiles.back() > 100) return wrong("--metric-percentiles: " + text + " is above 100");
  }
  for (const std::string& pair : options.goodput) {
    const size_t colon = pair.find(':');
    const std::string name = pair.substr(0, colon);
    if (colon == std::string::npos || (name != "ttft" && name != "tpot" && name != "e2el")) {
      return wrong("--goodput: " + pair + " must be ttft:MS, tpot:MS or e2el:MS");
    }
    out.goodput[name] = TRY(number_of(pair.substr(colon + 1), "--goodput"));
  }
  return out;
}

// When each request is due: a Poisson process (burstiness 1), or a gamma process with the same rate,
// stretched so that the whole takes what the rate says.
Result<std::vector<double>> due_times(const ServeBenchOptions& options) {
  std::vector<double> due(static_cast<size_t>(options.num_prompts), 0.0);
  if (options.request_rate == "inf") return due;
  const double rate = TRY(number_of(options.request_rate, "--request-rate"));
  if (rate == 0) return wrong("--request-rate must be above 0, or inf");
  std::mt19937_64 random(options.seed);
  std::gamma_distribution<double> gap(options.burstiness, 1 / (rate * options.burstiness));
  double at = 0;
  for (double& time : due) time = at += gap(random);
  const double stretch = at > 0 ? static_cast<double>(options.num_prompts) / rate / at : 1;
  for (double& time : due) time *= stretch;
  return due;
}

// Prompts of random words, or of random token ids where the server takes them (completions). The first
// prefix_len are the same in all.
class RandomPrompts {
 public:
  RandomPrompts(const ServeBenchOptions& options, int64_t num_ids) : options_(options), num_ids_(num_ids) {}

  Json prompt(size_t index, int64_t length) const {
    if (!options_.is_chat() && num_ids_ > 0) {
      Json ids = Json::array();
      for (int64_t i = 0; i < length; ++i) {
        constexpr int64_t kFirst = 1000;  // behind control tokens and single bytes
        ids.push_back(kFirst + static_cast<int64_t>(bits(index, i) % static_cast<uint64_t>(num_ids_ - kFirst)));
      }
      return ids;
    }
    static constexpr const char* kWords[] = {"wind", "sea", "stone", "light", "river", "house", "green", "time",
                                             "snow", "road", "field", "north", "bread", "night", "paper", "glass"};
    std::string text;
    for (int64_t i = 0; i < length; ++i) text += (i == 0 ? "" : " ") + std::string(kWords[bits(index, i) % std::size(kWords)]);
    return text;
  }
  int64_t length(int64_t mean, size_t index, uint64_t what) const {
    const double spread = options_.range_ratio * static_cast<double>(mean);
    const double drawn = static_cast<double>(mean) - spread + 2 * spread * random_uniform(options_.seed, 7 + what, index);
    return std::max<int64_t>(1, std::llround(drawn));
  }

 private:
  uint64_t bits(size_t index, int64_t place) const {
    const bool shared = place < options_.prefix_len;
    return random_bits(options_.seed, shared ? 1 : 100 + index, static_cast<uint64_t>(place));
  }
  const ServeBenchOptions& options_;
  int64_t num_ids_;
};

struct Wanted {
  Json prompt;
  int64_t prompt_tokens = 0, output_tokens = 0;
};

// One JSON object per line: {"prompt": TEXT, "output_tokens": N}; as often over as it takes.
Result<std::vector<Wanted>> read_dataset(const ServeBenchOptions& options) {
  const std::string text = TRY(read_file(options.dataset, uint64_t{1} << 30));
  std::vector<Wanted> lines;
  for (size_t from = 0; from < text.size();) {
    const size_t end = std::min(text.find('\n', from), text.size());
    const std::string_view line(text.data() + from, end - from);
    from = end + 1;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string place = options.dataset + ", line " + std::to_string(lines.size() + 1);
    const Json object = TRY(parse_json(line).with_context(place));
    if (!object.is_object()) return wrong(place + ": expected an object");
    Wanted wanted;
    std::string prompt = TRY(json_string(object, "prompt", "", place));
    wanted.output_tokens = TRY(json_int(object, "output_tokens", options.output_len, place));
    if (prompt.empty()) return wrong(place + ": prompt is missing");
    wanted.prompt = std::move(prompt);
    lines.push_back(std::move(wanted));
  }
  if (lines.empty()) return wrong(options.dataset + " has no lines");
  std::vector<Wanted> out;
  for (size_t i = 0; i < static_cast<size_t>(options.num_prompts); ++i) out.push_back(lines[i % lines.size()]);
  return out;
}

std::string body_of(const ServeBenchOptions& options, const Json& extra, const Wanted& wanted) {
  Json body;
  body["model"] = options.model;
  if (options.is_chat()) {
    body["messages"] = Json::array({Json{{"role", "user"}, {"content", wanted.prompt}}});
    body["max_completion_tokens"] = wanted.output_tokens;
  } else {
    body["prompt"] = wanted.prompt;
    body["max_tokens"] = wanted.output_tokens;
  }
  if (options.ignore_eos) body["ignore_eos"] = true;
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  for (auto it = extra.begin(); it != extra.end(); ++it) body[it.key()] = it.value();
  return body.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// The served model, when none was named; and how many token ids it has, where the server tells.
Result<int64_t> ask_model(ServeBenchOptions& options, const ServeClientOptions& client, std::string& root) {
  const std::string text = TRY(http_get(options.base_url + "/v1/models", client));
  const Json models = TRY(parse_json(text).with_context("/v1/models"));
  const auto data = models.is_object() ? models.find("data") : models.end();
  if (!models.is_object() || data == models.end() || !data->is_array() || data->empty() || !(*data)[0].is_object()) {
    return wrong("/v1/models lists no model");
  }
  const Json* chosen = &(*data)[0];
  for (const Json& one : *data) {
    if (one.is_object() && one.value("id", Json()) == Json(options.model)) chosen = &one;
  }
  if (options.model.empty()) options.model = TRY(json_string(*chosen, "id", "", "/v1/models"));
  root = TRY(json_string(*chosen, "root", options.model, "/v1/models"));
  const Json* meta = TRY(json_object(*chosen, "meta", "/v1/models"));
  return meta == nullptr ? 0 : TRY(json_int(*meta, "n_vocab", 0, "/v1/models meta"));
}

std::string now_text() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  return std::string(text, std::strftime(text, sizeof text, "%Y%m%d-%H%M%S", &parts));
}

Result<int> bench_serve(ServeBenchOptions& options) {
  const ServeReportOptions reports = TRY(report_options(options));
  const std::vector<double> due = TRY(due_times(options));
  Json extra = Json::object();
  if (!options.extra_body.empty()) extra = TRY(parse_json(options.extra_body).with_context("--extra-body"));
  if (!extra.is_object()) return wrong("--extra-body must be a JSON object");
  while (options.base_url.ends_with('/')) options.base_url.pop_back();
  if (options.base_url.ends_with("/v1")) options.base_url.resize(options.base_url.size() - 3);
  ServeClientOptions client;
  client.headers = options.headers;
  client.headers.push_back("Content-Type: application/json");
  if (const char* key = std::getenv("OPENAI_API_KEY"); key != nullptr && *key != '\0') {
    client.headers.push_back("Authorization: Bearer " + std::string(key));
  }
  client.insecure = options.insecure;
  std::string root;
  const int64_t num_ids = TRY(ask_model(options, client, root));
  if (options.endpoint.empty()) options.endpoint = options.is_chat() ? "/v1/chat/completions" : "/v1/completions";
  client.url = options.base_url + options.endpoint;

  std::vector<Wanted> wanted;
  if (!options.dataset.empty()) {
    wanted = TRY(read_dataset(options));
  } else {
    const RandomPrompts random(options, num_ids);
    for (size_t i = 0; i < due.size(); ++i) {
      const int64_t length = random.length(options.input_len, i, 0) + options.prefix_len;
      wanted.push_back({random.prompt(i, length), length, random.length(options.output_len, i, 1)});
    }
  }
  handle_termination();
  if (options.num_warmups > 0) {
    const std::vector<ServeRequest> warm(static_cast<size_t>(options.num_warmups), {0, body_of(options, extra, wanted[0]), 0});
    const ServeRun first = TRY(run_serve_load(warm, client));
    for (const ServeSample& sample : first.samples) {
      if (!sample.ok) return Error(ErrorCode::io, "the first request failed: " + sample.error);
    }
  }
  std::vector<ServeRequest> requests;
  for (size_t i = 0; i < due.size(); ++i) requests.push_back({due[i], body_of(options, extra, wanted[i]), wanted[i].prompt_tokens});
  client.max_concurrency = options.max_concurrency;
  const ServeRun run = TRY(run_serve_load(requests, client));

  Json report;
  report["date"] = now_text();
  report["backend"] = options.backend;
  report["endpoint_type"] = options.backend;
  report["model_id"] = options.model;
  report["tokenizer_id"] = root;
  report["num_prompts"] = options.num_prompts;
  report["request_rate"] = options.request_rate == "inf" ? Json("inf") : Json(std::atof(options.request_rate.c_str()));
  report["burstiness"] = options.burstiness;
  report["max_concurrency"] = options.max_concurrency > 0 ? Json(options.max_concurrency) : Json();
  report.update(serve_report(run.samples, run.duration, reports));
  if (!options.result_file.empty()) {
    FileWriter file = TRY(FileWriter::create(options.result_file));
    TRY(file.write(as_bytes(json_line(report))));
    TRY(file.commit());
  }
  TRY(write_output(options.json ? json_line(report) : serve_report_table(report, reports)));
  for (const ServeSample& sample : run.samples) {
    if (sample.ok) continue;
    std::fprintf(stderr, "the first that failed: %s\n", sample.error.c_str());
    break;
  }
  if (interrupted()) return kExitInterrupted;
  return report["completed"].get<int64_t>() > 0 ? kExitDone : kExitFailed;
}

}  // namespace

void add_bench_serve(CLI::App& bench, Action& action) {
  auto options = std::make_shared<ServeBenchOptions>();
  CLI::App* command = bench.add_subcommand("serve", "load on a running OpenAI-compatible server");
  command->add_option("--base-url", options->base_url, "the server, without /v1")->capture_default_str();
  command->add_option("--backend", options->backend, "openai-chat: /v1/chat/completions; openai: /v1/completions")
      ->check(CLI::IsMember({"openai-chat", "openai"}))->capture_default_str();
  command->add_option("--endpoint", options->endpoint, "another path");
  command->add_option("--model", options->model, "name that requests give (default: the first that the server lists)");
  command->add_option("--num-prompts", options->num_prompts, "requests")->check(CLI::Range(1, 1 << 24))->capture_default_str();
  command->add_option("--request-rate", options->request_rate, "requests per second, or inf: all at once")->capture_default_str();
  command->add_option("--burstiness", options->burstiness, "of the arrivals: 1 is a Poisson process, less is burstier")->check(CLI::Range(1e-3, 1e6))->capture_default_str();
  command->add_option("--max-concurrency", options->max_concurrency, "requests under way at the same time; 0: any")->check(CLI::Range(0, 1 << 20))->capture_default_str();
  command->add_option("--num-warmups", options->num_warmups, "requests before the measurement")->check(CLI::Range(0, 1 << 16))->capture_default_str();
  command->add_option("--input-len,--random-input-len", options->input_len, "tokens of a random prompt (chat: words)")->check(CLI::Range(int64_t{1}, int64_t{1} << 24))->capture_default_str();
  command->add_option("--output-len,--random-output-len", options->output_len, "tokens of an answer at most")->check(CLI::Range(int64_t{1}, int64_t{1} << 24))->capture_default_str();
  command->add_option("--prefix-len,--random-prefix-len", options->prefix_len, "tokens in front of it that all prompts share")->check(CLI::Range(int64_t{0}, int64_t{1} << 24))->capture_default_str();
  command->add_option("--range-ratio,--random-range-ratio", options->range_ratio, "lengths are drawn from (1 - r) to (1 + r) times those above")->check(CLI::Range(0.0, 1.0))->capture_default_str();
  command->add_option("--dataset-path", options->dataset, "prompts from a file instead: a JSON object {\"prompt\", \"output_tokens\"} per line")->check(CLI::ExistingFile);
  command->add_flag("--ignore-eos", options->ignore_eos, "ask for answers of full length");
  command->add_option("--extra-body", options->extra_body, "JSON object of more fields for every request, such as {\"temperature\": 0}");
  command->add_option("--header", options->headers, "more header, \"Name: value\"; may be repeated")->allow_extra_args(false);
  command->add_option("--goodput", options->goodput, "goals that a good request meets: ttft:MS tpot:MS e2el:MS");
  command->add_option("--percentile-metrics", options->metrics, "of ttft, tpot, itl, e2el")->capture_default_str();
  command->add_option("--metric-percentiles", options->percentiles, "such as 50,99")->capture_default_str();
  command->add_option("--seed", options->seed, "of prompts, lengths and arrivals")->capture_default_str();
  command->add_option("--result-filename", options->result_file, "write the JSON object there, too");
  command->add_flag("--save-detailed", options->detailed, "with the times and texts of every request in the JSON");
  command->add_flag("--insecure", options->insecure, "accept any TLS certificate");
  command->add_flag("--json", options->json, "print one JSON object, with the names of vllm bench serve");
  command->footer("OPENAI_API_KEY is sent as the key. Output tokens are those of the server's usage.");
  command->callback([options, &action] { action = [options] { return bench_serve(*options); }; });
}

}  // namespace bise
