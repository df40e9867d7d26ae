// `bise probe`: the machine-readable inside, line by line.
#include "app/probe.h"

#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cerrno>
#include <cstring>

#include "app/commands.h"
#include "app/terminal.h"

namespace bise {
namespace {

constexpr size_t kMaxLineBytes = size_t{128} << 20;

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

const char* code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument: return "invalid_argument";
    case ErrorCode::not_found: return "not_found";
    case ErrorCode::io: return "io";
    case ErrorCode::corrupt: return "corrupt";
    case ErrorCode::unsupported: return "unsupported";
    case ErrorCode::too_large: return "too_large";
    case ErrorCode::out_of_memory: return "out_of_memory";
    case ErrorCode::busy: return "busy";
    case ErrorCode::cancelled: return "cancelled";
    case ErrorCode::device: return "device";
    case ErrorCode::internal: return "internal";
  }
  return "internal";
}

size_t skip_blanks(std::string_view text, size_t at) {
  while (at < text.size() &&
         (text[at] == ' ' || text[at] == '\t' || text[at] == '\r' || text[at] == '\n'))
    ++at;
  return at;
}
// The byte behind a string that begins at `at`, or the end of the text when it is not closed.
size_t skip_string(std::string_view text, size_t at) {
  for (++at; at < text.size(); ++at) {
    if (text[at] == '\\') {
      ++at;
    } else if (text[at] == '"') {
      return at + 1;
    }
  }
  return text.size();
}
// The byte behind a value: brackets are counted, strings are skipped; what is inside is not judged.
size_t skip_value(std::string_view text, size_t at) {
  int64_t depth = 0;
  while (at < text.size()) {
    char c = text[at];
    if (c == '"') {
      at = skip_string(text, at);
      if (depth == 0) return at;
      continue;
    }
    if (c == '{' || c == '[') ++depth;
    if (c == '}' || c == ']' || c == ',') {
      if (depth == 0) return at;
      if (c != ',' && --depth == 0) return at + 1;
    }
    ++at;
  }
  return at;
}

// Cuts the value of a top-level member out of `line`, leaving null, and returns its text.
std::string cut_member(std::string& line, std::string_view member) {
  size_t at = skip_blanks(line, 0);
  if (at >= line.size() || line[at] != '{') return "";
  ++at;
  for (;;) {
    at = skip_blanks(line, at);
    if (at >= line.size() || line[at] != '"') return "";
    size_t key_end = skip_string(line, at);
    bool found =
        key_end - at == member.size() + 2 && line.compare(at + 1, member.size(), member) == 0;
    at = skip_blanks(line, key_end);
    if (at >= line.size() || line[at] != ':') return "";
    at = skip_blanks(line, at + 1);
    size_t end = skip_value(line, at);
    if (found) {
      std::string value = line.substr(at, end - at);
      line.replace(at, end - at, "null");
      return value;
    }
    at = skip_blanks(line, end);
    if (at >= line.size() || line[at] != ',') return "";
    ++at;
  }
}

Json with_id(const Json& id, const Json& answer) {
  if (id.is_null()) return answer;
  Json out = {{"id", id}};
  for (const auto& [key, value] : answer.items()) {
    if (key != "id") out[key] = value;
  }
  return out;
}

}  // namespace

Json Probe::error_answer(const Error& error) const {
  return {{"error",
           {{"message", error.message()},
            {"param", error.param().empty() ? Json() : Json(error.param())},
            {"code", code_name(error.code())}}}};
}

Error bad_field(const std::string& field, const std::string& problem) {
  return Error(ErrorCode::invalid_argument, field + ": " + problem).with_param(field);
}

Result<void> allow_fields(const Json& line, std::initializer_list<const char*> known) {
  for (const auto& [key, value] : line.items()) {
    if (key == "id" || std::find(known.begin(), known.end(), key) != known.end()) continue;
    std::string names = "id";
    for (const char* name : known) names += std::string(", ") + name;
    return bad_field(key.substr(0, 80), "unknown field; known are " + names);
  }
  return {};
}

Result<std::vector<TokenId>> token_ids(const Json& line, const char* key, TokenId vocab_size) {
  auto found = line.find(key);
  if (found == line.end() || !found->is_array())
    return bad_field(key, "expected a list of token ids");
  std::vector<TokenId> ids;
  ids.reserve(found->size());
  for (const Json& item : *found) {
    bool fits = item.is_number_integer() && item >= 0 && item < vocab_size;
    if (!fits) {
      return bad_field(key, "item " + std::to_string(ids.size()) + " is " +
                                item.dump().substr(0, 40) + ", expected an id from 0 to " +
                                std::to_string(vocab_size - 1));
    }
    ids.push_back(item.get<TokenId>());
  }
  return ids;
}

Result<std::vector<std::string>> string_list(const Json& line, const char* key) {
  std::vector<std::string> out;
  auto found = line.find(key);
  if (found == line.end() || found->is_null()) return out;
  if (!found->is_array()) return bad_field(key, "expected a list of strings");
  for (const Json& item : *found) {
    if (!item.is_string()) return bad_field(key, "expected a list of strings");
    out.push_back(item.get<std::string>());
  }
  return out;
}

void replace_lone_surrogates(std::string& json) {
  auto escape = [&](size_t at) -> uint32_t {  // value of \uXXXX at `at`, 0 when it is none
    if (at + 6 > json.size() || json[at] != '\\' || json[at + 1] != 'u') return 0;
    uint32_t value = 0;
    for (size_t i = at + 2; i < at + 6; ++i) {
      char c = json[i];
      uint32_t digit = c >= '0' && c <= '9'   ? static_cast<uint32_t>(c - '0')
                       : c >= 'a' && c <= 'f' ? static_cast<uint32_t>(c - 'a' + 10)
                       : c >= 'A' && c <= 'F' ? static_cast<uint32_t>(c - 'A' + 10)
                                              : 16;
      if (digit == 16) return 0;
      value = value * 16 + digit;
    }
    return value;
  };
  for (size_t at = json.find('\\'); at != std::string::npos; at = json.find('\\', at)) {
    uint32_t value = escape(at);
    bool high = value >= 0xD800 && value < 0xDC00, low = value >= 0xDC00 && value < 0xE000;
    uint32_t next = high ? escape(at + 6) : 0;
    if (high && next >= 0xDC00 && next < 0xE000) {
      at += 12;
    } else {
      if (high || low) json.replace(at + 2, 4, "fffd");
      at += value != 0 ? 6 : 2;
    }
  }
}

Result<void> answer_line(Probe& probe, std::string line,
                         const std::function<Result<void>(std::string_view)>& write) {
  replace_lone_surrogates(line);
  std::string raw;
  if (probe.raw_member()[0] != '\0') raw = cut_member(line, probe.raw_member());
  JsonLimits limits;
  limits.max_bytes = kMaxLineBytes;
  Result<Json> parsed = parse_json(line, limits);
  if (parsed && !parsed->is_object()) {
    parsed =
        Error(ErrorCode::invalid_argument,
              std::string("expected a JSON object on the line, found ") + json_type_name(*parsed));
  }
  // The line itself is at fault: always the general form, whatever the probe's own is.
  if (!parsed) return write(dump(probe.Probe::error_answer(parsed.error())));
  auto found = parsed->find("id");
  Json id = found == parsed->end() ? Json() : *found;
  // An answer that cannot be written ends the run; an Error of the probe ends the line.
  Result<void> written;
  Emit emit = [&](Json answer) -> Result<void> {
    written = write(dump(with_id(id, answer)));
    return written;
  };
  probe.set_raw(raw);
  Result<void> answered = probe.answer(*parsed, emit);
  if (!written) return written;
  if (answered) return {};
  if (answered.error().code() == ErrorCode::cancelled) return answered;
  return write(dump(with_id(id, probe.error_answer(answered.error()))));
}

Result<void> run_probe(Probe& probe, int input,
                       const std::function<Result<void>(std::string_view)>& write) {
  std::string line;
  bool too_long = false;
  std::vector<char> buffer(size_t{1} << 16);
  auto finish_line = [&]() -> Result<void> {
    std::string text = std::move(line);
    line.clear();
    bool skipped = std::exchange(too_long, false);
    if (skipped) {
      return write(dump(probe.Probe::error_answer(
          Error(ErrorCode::too_large,
                "the line is longer than " + std::to_string(kMaxLineBytes) + " bytes"))));
    }
    if (skip_blanks(text, 0) == text.size()) return {};
    return answer_line(probe, std::move(text), write);
  };
  for (;;) {
    ssize_t got = read(input, buffer.data(), buffer.size());
    if (interrupted()) return Error(ErrorCode::cancelled, "interrupted");
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      return Error(ErrorCode::io, std::string("cannot read standard input: ") + strerror(errno));
    if (got == 0) break;
    std::string_view rest(buffer.data(), static_cast<size_t>(got));
    while (!rest.empty()) {
      size_t newline = rest.find('\n');
      std::string_view part = rest.substr(0, newline);
      if (line.size() + part.size() > kMaxLineBytes) {
        too_long = true;
        line.clear();
      }
      if (!too_long) line += part;
      if (newline == std::string_view::npos) break;
      rest.remove_prefix(newline + 1);
      TRY(finish_line());
    }
  }
  if (!line.empty() || too_long) TRY(finish_line());
  return {};
}

namespace {

Result<int> probe_command(const ProbeOptions& options) {
  Log log = make_log(options.common.log_level);
  std::unique_ptr<Probe> probe = TRY(create_text_probe(options, log));
  if (!probe) probe = TRY(create_structure_probe(options, log));
  if (!probe) probe = TRY(create_model_probe(options, log));
  CHECK(probe != nullptr);
  TRY(run_probe(*probe, STDIN_FILENO, write_output));
  return kExitDone;
}

}  // namespace

void add_probe_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<ProbeOptions>();
  CLI::App* command = app.add_subcommand(
      "probe",
      "JSON lines in, JSON lines out: the parts of the program, for tests and bug reports");
  command->add_option("WHAT", options->what, "which part")
      ->required()
      ->check(
          CLI::IsMember({"tokenize", "encode", "parse", "structure", "logits", "generate", "image", "tensor"}));
  command
      ->add_option("MODEL", options->model,
                   "the model; for tokenize, encode, parse and structure also a bare tekken.json")
      ->required();
  add_common_options(*command, options->common);
  command->footer(
      "One JSON object per line on stdin; `id` is repeated in every answer. A bad line gets\n"
      "{\"error\": {\"message\", \"param\", \"code\"}} and the run goes on.\n"
      "  tokenize  {\"text\"} -> {\"ids\"}, or {\"decode\": [ids], \"keep_special\"} -> "
      "{\"text\"}\n"
      "  encode    {\"request\": {chat-completions body}, \"strict\"} -> {\"ids\", "
      "\"image_grid\"}\n"
      "  parse     {\"ids\", \"finish\": stop|length, \"start\": content|think, \"stream\"} -> "
      "message or deltas\n"
      "  structure {\"schema\" or \"regex\" or \"grammar\", \"texts\", \"walks\", \"max_tokens\", \"seed\"} ->\n"
      "            {\"accepted\": [of texts], \"walks\": [random texts], \"finished\", \"compile_us\", \"mask_us\"}\n"
      "  logits    {\"ids\" or \"text\", \"images\": [files], \"positions\", \"top\", \"dump\": "
      "file.npy} -> one line per position\n"
      "  generate  {\"ids\" or \"text\", \"images\", \"max_tokens\", \"temperature\", \"top_p\", "
      "\"top_k\", \"min_p\", \"seed\",\n"
      "             \"repetition_penalty\", \"presence_penalty\", \"frequency_penalty\", "
      "\"logit_bias\", \"ignore_eos\",\n"
      "             \"logprobs\"} -> {\"ids\", \"finish_reason\"}\n"
      "  image     {\"file\", \"out\": file.npy} -> {\"width\", \"height\", \"rows\", \"cols\"}\n"
      "  tensor    {\"name\", \"out\": file.npy} -> {\"shape\", \"format\"}");
  command->callback([options, &action] { action = [options] { return probe_command(*options); }; });
}

}  // namespace bise
