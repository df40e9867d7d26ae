// `bise eval ppl`: how well a model foretells a text, for comparing formats, precisions and caches.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>

#include "app/commands.h"
#include "app/eval_math.h"
#include "app/probe.h"
#include "app/session.h"
#include "app/terminal.h"
#include "app/text_format.h"
#include "base/file.h"
#include "engine/sampler.h"

namespace bise {
namespace {

constexpr uint64_t kMaxText = uint64_t{256} << 20;

struct PplOptions {
  std::string model, text, ids, save, base;
  int64_t window = 512, windows = 0;
  bool json = false;
  CommonOptions common;
};

// Tokens in one run of the model; those from `first` on are scored, each by what stands before it.
struct Window {
  std::vector<int32_t> ids;
  size_t first;
};

// As llama-perplexity cuts a text: windows that do not overlap, the first token of each replaced by BOS where the chat
// format begins with one, and tokens window / 2 + 1 and later scored. A last piece that does not fill a window is left out.
Result<std::vector<Window>> windows_of_text(const PplOptions& options, const std::string& text, const Session& session) {
  if (!session.chat.service) return Error(ErrorCode::not_found, "the model has no tokenizer; give --ids instead of --text");
  const std::vector<int32_t> ids = session.chat.service->tokenizer().encode(text);
  const auto size = static_cast<size_t>(options.window);
  const TokenId bos = session.chat.service->bos();
  std::vector<Window> windows;
  for (size_t at = 0; at + size <= ids.size(); at += size) {
    Window w{{ids.begin() + static_cast<ptrdiff_t>(at), ids.begin() + static_cast<ptrdiff_t>(at + size)}, size / 2 + 1};
    if (bos >= 0) w.ids[0] = bos;
    windows.push_back(std::move(w));
  }
  if (windows.empty()) {
    return Error(ErrorCode::invalid_argument, options.text + ": found " + std::to_string(ids.size()) +
                                                  " tokens, expected at least one window of " + std::to_string(size) +
                                                  "; give a longer text or a smaller --window");
  }
  return windows;
}

// JSON lines {"ids": [...], "first": n}: tokens from n on are scored.
Result<std::vector<Window>> windows_of_ids(const PplOptions& options, const std::string& text, const Session& session) {
  std::vector<Window> windows;
  size_t number = 0;
  for (size_t at = 0; at < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = std::string_view(text).substr(at, end - at);
    at = end + 1;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string place = options.ids + ", line " + std::to_string(number + 1);
    auto read = [&]() -> Result<Window> {
      const Json json = TRY(parse_json(line));
      if (!json.is_object()) return Error(ErrorCode::invalid_argument, "expected an object {\"ids\": [...], \"first\": n}");
      TRY(allow_fields(json, {"ids", "first"}));
      Window w{TRY(token_ids(json, "ids", session.model->config().vocab_size)), 0};
      const int64_t first = TRY(json_int(json, "first", 1, ""));
      if (first < 1 || first >= static_cast<int64_t>(w.ids.size())) {
        return bad_field("first", "is " + std::to_string(first) + ", and ids are " + std::to_string(w.ids.size()) + "; expected 1 or more, and less than the ids");
      }
      w.first = static_cast<size_t>(first);
      return w;
    };
    Result<Window> window = read();
    if (!window) return std::move(window).error().with_context(place);
    windows.push_back(*std::move(window));
  }
  if (windows.empty()) return Error(ErrorCode::invalid_argument, options.ids + ": found no line, expected JSON lines {\"ids\": [...], \"first\": n}");
  return windows;
}

// The natural logarithms of the probabilities of the scored tokens, in order.
Result<std::vector<double>> score(Session& session, const std::vector<Window>& windows) {
  std::vector<double> logprobs;
  ProgressBar progress("scoring");
  for (size_t i = 0; i < windows.size(); ++i) {
    const Window& w = windows[i];
    std::vector<int32_t> positions;
    for (size_t p = w.first; p < w.ids.size(); ++p) positions.push_back(static_cast<int32_t>(p) - 1);
    TRY(session.engine->score(w.ids, {}, positions, [&](int32_t position, std::span<const float> logits) {
      const auto next = static_cast<size_t>(w.ids[static_cast<size_t>(position) + 1]);
      logprobs.push_back(static_cast<double>(logits[next]) - log_sum_exp(logits));
      return !interrupted();
    }));
    if (interrupted()) return Error(ErrorCode::cancelled, "interrupted");
    progress.update(i + 1, windows.size());
  }
  return logprobs;
}

// So that runs over other tokens are not compared.
std::string digest_of(const std::vector<Window>& windows) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  auto add = [&](uint64_t value) {
    for (int i = 0; i < 64; i += 8) hash = (hash ^ (value >> i & 255)) * 0x100000001b3;
  };
  for (const Window& w : windows) {
    add(w.first);
    for (int32_t id : w.ids) add(static_cast<uint32_t>(id));
  }
  char text[17];
  std::snprintf(text, sizeof(text), "%016" PRIx64, hash);
  return text;
}

Result<std::vector<double>> read_base(const std::string& path, const std::string& text, const std::string& digest, size_t count) {
  auto read = [&]() -> Result<std::vector<double>> {
    const Json json = TRY(parse_json(text));
    if (!json.is_object() || !json.contains("logprobs") || !json["logprobs"].is_array()) {
      return Error(ErrorCode::invalid_argument, "expected what --save of `bise eval ppl` wrote");
    }
    if (TRY(json_string(json, "tokens_digest", "", "")) != digest || json["logprobs"].size() != count) {
      return Error(ErrorCode::invalid_argument, "was made from other tokens; run both with the same text, --window and --windows");
    }
    std::vector<double> values;
    for (const Json& item : json["logprobs"]) {
      if (!item.is_number()) return Error(ErrorCode::invalid_argument, "item " + std::to_string(values.size()) + " of logprobs is no number");
      values.push_back(item.get<double>());
    }
    return values;
  };
  auto values = read();
  if (!values) return std::move(values).error().with_context(path);
  return values;
}

Result<int> ppl(const PplOptions& options) {
  const Log log = make_log(options.common.log_level);
  // A file that cannot be read or written shows before the long part.
  const std::string source = TRY(read_file(options.text.empty() ? options.ids : options.text, kMaxText));
  std::string base_text;
  if (!options.base.empty()) base_text = TRY(read_file(options.base, kMaxText));
  std::optional<FileWriter> saving;
  if (!options.save.empty()) saving.emplace(TRY(FileWriter::create(options.save)));
  SessionOptions wanted;
  wanted.common = options.common;
  wanted.needs_text = !options.text.empty();
  std::unique_ptr<Session> session = TRY(open_session(options.model, wanted, log));
  std::vector<Window> windows = TRY(options.text.empty() ? windows_of_ids(options, source, *session)
                                                           : windows_of_text(options, source, *session));
  if (options.windows > 0 && windows.size() > static_cast<size_t>(options.windows)) windows.resize(static_cast<size_t>(options.windows));
  const std::string digest = digest_of(windows);
  size_t count = 0;
  for (const Window& w : windows) count += w.ids.size() - w.first;
  std::vector<double> base;
  if (!options.base.empty()) base = TRY(read_base(options.base, base_text, digest, count));

  const std::vector<double> logprobs = TRY(score(*session, windows));
  const Perplexity result = perplexity(logprobs);
  Json row = {{"perplexity", result.value}, {"error", result.error}, {"tokens", count}, {"windows", windows.size()},
              {"precision", options.common.precision}, {"isa", session->backend->isa()}};
  std::string line = "perplexity " + format_fixed(result.value, 4) + " +- " + format_fixed(result.error, 4) + ", " +
                     format_count(count) + " tokens in " + format_count(windows.size()) + (windows.size() == 1 ? " window" : " windows");
  if (!base.empty()) {
    const PerplexityRatio ratio = perplexity_ratio(logprobs, base);
    row["ratio"] = ratio.value;
    row["ratio_error"] = ratio.error;
    line += "; " + format_fixed(100 * (ratio.value - 1), 3) + " % +- " + format_fixed(100 * ratio.error, 3) + " % above " + options.base;
  }
  if (saving) {
    const Json saved = {{"tokens_digest", digest}, {"perplexity", result.value}, {"logprobs", logprobs}};
    TRY(saving->write(as_bytes(saved.dump() + "\n")));
    TRY(saving->commit());
  }
  TRY(write_output((options.json ? row.dump() : line) + "\n"));
  return kExitDone;
}

}  // namespace

void add_eval_command(CLI::App& app, Action& action) {
  CLI::App* eval = app.add_subcommand("eval", "how good a model is: for comparing formats, precisions and caches");
  eval->require_subcommand(1);
  auto options = std::make_shared<PplOptions>();
  CLI::App* command = eval->add_subcommand("ppl", "perplexity of a text");
  command->add_option("MODEL", options->model, "the model")->required();
  CLI::App* source = command->add_option_group("What is scored");
  source->require_option(1);
  source->add_option("--text", options->text, "a file of text, cut into windows; the second half of each is scored, as llama-perplexity does");
  source->add_option("--ids", options->ids, "a file of JSON lines {\"ids\": [...], \"first\": n}: tokens from n on are scored");
  command->add_option("--window", options->window, "tokens of a window of --text")->capture_default_str()->check(CLI::Range(int64_t{4}, int64_t{1} << 20));
  command->add_option("--windows", options->windows, "the first so many; 0: all")->capture_default_str()->check(CLI::Range(int64_t{0}, int64_t{1} << 30));
  command->add_option("--save", options->save, "keep the probability of every scored token in this file");
  command->add_option("--base", options->base, "a file of --save: tell the ratio of the perplexities too, with the error of their paired difference");
  command->add_flag("--json", options->json, "print a JSON object");
  add_common_options(*command, options->common);
  command->callback([options, &action] { action = [options] { return ppl(*options); }; });
}

}  // namespace bise
