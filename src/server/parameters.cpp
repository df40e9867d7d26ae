#include "server/parameters.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <random>

#include "base/utf8.h"

namespace bise {
namespace {

constexpr int32_t kMaxAnswers = 16, kMaxLogprobs = 20;
constexpr size_t kMaxStops = 16, kMaxStopCharacters = 256, kMaxStopTokens = 256, kMaxBiases = 4096;
constexpr size_t kMaxRegexCharacters = 1000, kMaxBadWords = 1024, kMaxLogprobIds = 256;

ApiError wrong_type(const std::string& name, const PyJson& value, const std::string& expected) {
  return ApiError::invalid(name, name + " is " + value.type_name() + "; expected " + expected, "invalid_type");
}

ApiError out_of_range(const std::string& name, const std::string& value, const std::string& allowed) {
  return ApiError::invalid(name, name + " is " + value + "; it must be " + allowed);
}

size_t num_characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

bool is_number(const PyJson& value, double wanted) {
  if (auto whole = whole_number(value)) return static_cast<double>(*whole) == wanted;
  return value.real() != nullptr && *value.real() == wanted;
}

bool asks_for_nothing(const PyJson& value, FieldRule rule) {
  switch (rule) {
    case FieldRule::only_false: return value.boolean() != nullptr && !*value.boolean();
    case FieldRule::only_true: return value.boolean() != nullptr && *value.boolean();
    case FieldRule::only_zero: return is_number(value, 0) || is_number(value, -1);
    case FieldRule::only_one: return is_number(value, 1);
    case FieldRule::only_empty: return !value.truthy();
    default: return false;
  }
}

ApiStatus check_fields(const PyJson& body, Endpoint endpoint, RequestNotes& notes) {
  std::span<const FieldRow> table = field_table(endpoint);
  for (const PyJson::Member& member : *body.object()) {
    if (member.value.is_null()) continue;
    auto row = std::find_if(table.begin(), table.end(), [&](const FieldRow& r) { return member.key == r.name; });
    if (row == table.end() || row->rule == FieldRule::unused) {
      notes.unused.push_back(member.key);
      continue;
    }
    if (row->rule == FieldRule::obeyed || asks_for_nothing(member.value, row->rule)) continue;
    std::string message = member.key + " is not supported";
    if (row->rule == FieldRule::only_false) message += " beyond false";
    if (row->rule == FieldRule::only_true) message += " beyond true";
    if (row->rule == FieldRule::only_zero) message += " beyond 0";
    if (row->rule == FieldRule::only_one) message += " beyond 1";
    if (row->rule == FieldRule::only_empty) message += " unless it is empty";
    if (row->note[0] != '\0') message += std::string(": ") + row->note;
    return ApiError::unsupported(member.key, message);
  }
  return Done{};
}

// The value of the first of these names that is there, and which one.
struct Named {
  const char* name = nullptr;
  const PyJson* value = nullptr;
};
Named first_of(const PyJson& body, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (const PyJson* value = body.get(name)) return {name, value};
  }
  return {};
}

ApiStatus read_double(const PyJson& body, std::initializer_list<const char*> names, double& out) {
  Named found = first_of(body, names);
  if (found.name == nullptr) return Done{};
  out = *TRY(number_field(body, found.name));
  return Done{};
}

ApiStatus read_bool(const PyJson& body, std::initializer_list<const char*> names, bool& out) {
  Named found = first_of(body, names);
  if (found.name == nullptr) return Done{};
  out = *TRY(bool_field(body, found.name));
  return Done{};
}

ApiResult<std::vector<int32_t>> token_list(const PyJson& body, const char* name, size_t most, int32_t vocab_size) {
  std::vector<int32_t> out;
  const PyJson* list = body.get(name);
  if (list == nullptr) return out;
  if (list->array() == nullptr) return wrong_type(name, *list, "a list of token ids");
  if (list->array()->size() > most) {
    return out_of_range(name, "a list of " + std::to_string(list->array()->size()), "at most " + std::to_string(most) + " token ids");
  }
  for (const PyJson& item : *list->array()) {
    std::optional<int64_t> id = whole_number(item);
    if (!id) return wrong_type(std::string(name) + "[]", item, "a token id");
    if (*id < 0 || *id >= vocab_size) {
      return out_of_range(name, "given with the token id " + std::to_string(*id), "of ids from 0 to " + std::to_string(vocab_size - 1));
    }
    out.push_back(static_cast<int32_t>(*id));
  }
  return out;
}

// A string, or a list of strings; none of them empty.
ApiResult<std::vector<std::string>> string_list(const PyJson& body, const char* name, size_t most, size_t most_characters) {
  std::vector<std::string> out;
  const PyJson* list = body.get(name);
  if (list == nullptr) return out;
  std::vector<const PyJson*> texts;
  if (list->string() != nullptr) {
    texts.push_back(list);
  } else if (list->array() != nullptr) {
    for (const PyJson& item : *list->array()) texts.push_back(&item);
  } else {
    return wrong_type(name, *list, "a string or a list of strings");
  }
  if (texts.size() > most) {
    return out_of_range(name, "a list of " + std::to_string(texts.size()), "at most " + std::to_string(most) + " strings");
  }
  for (const PyJson* item : texts) {
    if (item->string() == nullptr) return wrong_type(std::string(name) + "[]", *item, "a string");
    std::string text = join_surrogates(*item->string());
    if (text.empty()) return ApiError::invalid(name, std::string(name) + " holds an empty string");
    if (num_characters(text) > most_characters) {
      return out_of_range(name, "a string of " + std::to_string(num_characters(text)) + " characters",
                          "at most " + std::to_string(most_characters) + " characters long");
    }
    out.push_back(std::move(text));
  }
  return out;
}

ApiStatus read_stops(const PyJson& body, GenerationParameters& out, int32_t vocab_size) {
  out.stop = TRY(string_list(body, "stop", kMaxStops, kMaxStopCharacters));
  out.stop_regex = TRY(string_list(body, "stop_regex", kMaxStops, kMaxRegexCharacters));
  out.sampling.stop_tokens = TRY(token_list(body, "stop_token_ids", kMaxStopTokens, vocab_size));
  TRY(read_bool(body, {"include_stop_str_in_output", "no_stop_trim"}, out.include_stop));
  return Done{};
}

ApiStatus read_bias(const PyJson& body, GenerationParameters& out, int32_t vocab_size) {
  out.bad_words = TRY(string_list(body, "bad_words", kMaxBadWords, kMaxStopCharacters));
  const PyJson* bias = body.get("logit_bias");
  if (bias == nullptr) return Done{};
  if (bias->object() == nullptr) return wrong_type("logit_bias", *bias, "an object of token ids and numbers");
  if (bias->object()->size() > kMaxBiases) {
    return out_of_range("logit_bias", "an object of " + std::to_string(bias->object()->size()), "at most " + std::to_string(kMaxBiases) + " tokens");
  }
  for (const PyJson::Member& member : *bias->object()) {
    int32_t id = -1;
    const char* end = member.key.data() + member.key.size();
    auto read = std::from_chars(member.key.data(), end, id);
    if (read.ec != std::errc() || read.ptr != end || id < 0 || id >= vocab_size) {
      return out_of_range("logit_bias", "given for \"" + member.key.substr(0, 40) + "\"",
                          "given for token ids from 0 to " + std::to_string(vocab_size - 1));
    }
    std::optional<int64_t> whole = whole_number(member.value);
    if (!whole && member.value.real() == nullptr) return wrong_type("logit_bias." + member.key, member.value, "a number");
    double number = whole ? static_cast<double>(*whole) : *member.value.real();
    if (!(number >= -100 && number <= 100)) return out_of_range("logit_bias." + member.key, "out of range", "from -100 to 100");
    out.sampling.logit_bias[id] = static_cast<float>(number);
  }
  return Done{};
}

ApiStatus read_lengths(const PyJson& body, Endpoint endpoint, GenerationParameters& out) {
  constexpr int64_t kMost = int64_t{1} << 30;
  Named most = first_of(body, {"max_completion_tokens", "max_tokens", "n_predict"});
  if (most.name != nullptr) {
    int64_t count = *TRY(integer_field(body, most.name));
    const bool unlimited = std::string_view(most.name) == "n_predict" && count == -1;
    const int64_t least = endpoint == Endpoint::completions ? 0 : 1;
    if (!unlimited && count < least) return out_of_range(most.name, std::to_string(count), "at least " + std::to_string(least));
    out.max_tokens_given = !unlimited;
    out.sampling.max_tokens = unlimited ? 0 : static_cast<int32_t>(std::min(count, kMost));
  } else if (endpoint == Endpoint::completions) {
    out.max_tokens_given = true;
    out.sampling.max_tokens = 16;
  }
  if (auto least = TRY(integer_field(body, "min_tokens"))) {
    if (*least < 0 || *least > kMost) return out_of_range("min_tokens", std::to_string(*least), "0 or more");
    out.sampling.min_tokens = static_cast<int32_t>(*least);
    if (out.max_tokens_given && *least > out.sampling.max_tokens) {
      return out_of_range("min_tokens", std::to_string(*least), "at most max_tokens, which is " + std::to_string(out.sampling.max_tokens));
    }
  }
  if (auto n = TRY(integer_field(body, "n"))) {
    if (*n < 1 || *n > kMaxAnswers) return out_of_range("n", std::to_string(*n), "from 1 to " + std::to_string(kMaxAnswers));
    out.n = static_cast<int32_t>(*n);
  }
  return Done{};
}

ApiStatus read_sampling(const PyJson& body, GenerationParameters& out) {
  SamplingParams& sampling = out.sampling;
  TRY(read_double(body, {"temperature"}, sampling.temperature));
  TRY(read_double(body, {"top_p"}, sampling.top_p));
  TRY(read_double(body, {"min_p"}, sampling.min_p));
  TRY(read_double(body, {"repetition_penalty", "repeat_penalty"}, sampling.repetition_penalty));
  TRY(read_double(body, {"presence_penalty"}, sampling.presence_penalty));
  TRY(read_double(body, {"frequency_penalty"}, sampling.frequency_penalty));
  TRY(read_bool(body, {"ignore_eos"}, sampling.ignore_eos));
  if (auto top_k = TRY(integer_field(body, "top_k"))) {
    if (*top_k < -1 || *top_k > (int64_t{1} << 30)) return out_of_range("top_k", std::to_string(*top_k), "a positive number, or 0 or -1 for off");
    sampling.top_k = static_cast<int32_t>(*top_k);
  }
  Named seed = first_of(body, {"seed", "random_seed"});
  if (seed.name != nullptr) {
    int64_t number = *TRY(integer_field(body, seed.name));
    out.seed_given = number != -1;  // llama.cpp's word for: draw one
    sampling.seed = static_cast<uint64_t>(number);
  }
  if (!out.seed_given) {
    static thread_local std::mt19937_64 random{(uint64_t{std::random_device()()} << 32) | std::random_device()()};
    sampling.seed = random() & ((uint64_t{1} << 53) - 1);
  }
  return Done{};
}

ApiResult<int32_t> logprob_count(const PyJson& body, const char* name) {
  auto count = TRY(integer_field(body, name));
  if (!count) return -1;
  if (*count < 0 || *count > kMaxLogprobs) return out_of_range(name, std::to_string(*count), "from 0 to " + std::to_string(kMaxLogprobs));
  return static_cast<int32_t>(*count);
}

// -1: no limit. `reasoning` is what some gateways send: {effort, max_tokens, …}.
ApiStatus read_thinking(const PyJson& body, GenerationParameters& out) {
  const PyJson* holder = &body;
  Named budget = first_of(body, {"thinking_token_budget", "reasoning_budget"});
  const PyJson* reasoning = body.get("reasoning");
  if (reasoning != nullptr) {
    if (reasoning->object() == nullptr) return wrong_type("reasoning", *reasoning, "an object");
    for (const PyJson::Member& member : *reasoning->object()) {
      if (member.key != "effort" && member.key != "max_tokens" && !member.value.is_null()) out.notes.unused.push_back("reasoning." + member.key);
    }
    if (budget.name == nullptr) {
      holder = reasoning;
      budget = first_of(*reasoning, {"max_tokens"});
    }
  }
  if (budget.name == nullptr) return Done{};
  const std::string name = holder == &body ? budget.name : "reasoning.max_tokens";
  const int64_t count = *TRY(integer_field(*holder, budget.name));
  if (count < -1) return out_of_range(name, std::to_string(count), "0 or more, or -1 for no limit");
  if (count >= 0) out.thinking_budget = count;
  return Done{};
}

ApiStatus read_logprobs(const PyJson& body, Endpoint endpoint, GenerationParameters& out) {
  if (endpoint == Endpoint::completions) {
    const PyJson* value = body.get("logprobs");
    if (value != nullptr && value->boolean() != nullptr && !*value->boolean()) return Done{};
    out.sampling.num_logprobs = TRY(logprob_count(body, "logprobs"));
    return Done{};
  }
  bool wanted = false;
  TRY(read_bool(body, {"logprobs"}, wanted));
  int32_t top = TRY(logprob_count(body, "top_logprobs"));
  if (top > 0 && !wanted) return ApiError::invalid("top_logprobs", "top_logprobs needs logprobs: true");
  if (wanted) out.sampling.num_logprobs = std::max(top, 0);
  return Done{};
}

ApiStatus read_stream(const PyJson& body, GenerationParameters& out) {
  TRY(read_bool(body, {"stream"}, out.stream));
  const PyJson* options = body.get("stream_options");
  if (options == nullptr) return Done{};
  if (!out.stream) return ApiError::invalid("stream_options", "stream_options is only allowed with stream: true");
  if (options->object() == nullptr) return wrong_type("stream_options", *options, "an object");
  for (const PyJson::Member& member : *options->object()) {
    bool ignored = false;
    const std::string name = "stream_options." + member.key;
    bool* target = member.key == "include_usage"            ? &out.include_usage
                   : member.key == "continuous_usage_stats" ? &out.continuous_usage
                                                            : &ignored;
    if (target == &ignored) {
      // Calls are always streamed; there is nothing to obfuscate on a socket of one's own.
      out.notes.unused.push_back(name);
      continue;
    }
    if (member.value.is_null()) continue;
    if (member.value.boolean() == nullptr) return wrong_type(name, member.value, "true or false");
    *target = *member.value.boolean();
  }
  return Done{};
}

ApiStatus set_structure(GenerationParameters& out, Structure::Kind kind, const PyJson& value, const std::string& param) {
  if (out.structure.kind != Structure::Kind::none) {
    return ApiError::invalid(param, "only one structure may be asked for; " + out.structure.param + " and " + param + " were given");
  }
  Structure& structure = out.structure;
  structure.kind = kind;
  structure.param = param;
  switch (kind) {
    case Structure::Kind::structural_tag:
    case Structure::Kind::json_schema:
      if (value.string() != nullptr) structure.text = *value.string();  // vLLM takes the schema as text, too
      else if (value.object() != nullptr || value.boolean() != nullptr) structure.text = dump_python_json(value);
      else return wrong_type(param, value, kind == Structure::Kind::json_schema ? "a JSON schema" : "an object");
      return Done{};
    case Structure::Kind::regex:
    case Structure::Kind::lark:
      if (value.string() == nullptr) return wrong_type(param, value, "a string");
      structure.text = join_surrogates(*value.string());
      return Done{};
    case Structure::Kind::choice:
      if (value.array() == nullptr || value.array()->empty()) return wrong_type(param, value, "a list of strings that is not empty");
      for (const PyJson& item : *value.array()) {
        if (item.string() == nullptr) return wrong_type(param + "[]", item, "a string");
        structure.choices.push_back(join_surrogates(*item.string()));
      }
      return Done{};
    case Structure::Kind::json_object:
    case Structure::Kind::none: return Done{};
  }
  return Done{};
}

// What may stand between the parts of JSON.
ApiStatus read_blanks(const PyJson& body, GenerationParameters& out) {
  const PyJson* outputs = body.get("structured_outputs");
  const PyJson* pattern = outputs == nullptr ? nullptr : outputs->get("whitespace_pattern");
  std::string name = "structured_outputs.whitespace_pattern";
  if (pattern == nullptr) {
    pattern = body.get("guided_whitespace_pattern");
    name = "guided_whitespace_pattern";
  }
  const PyJson* none = outputs == nullptr ? nullptr : outputs->get("disable_any_whitespace");
  if (none != nullptr && none->boolean() == nullptr) return wrong_type("structured_outputs.disable_any_whitespace", *none, "true or false");
  out.structure.blanks.none = none != nullptr && *none->boolean();
  if (pattern == nullptr) return Done{};
  if (pattern->string() == nullptr) return wrong_type(name, *pattern, "a regex");
  const bool is_json = out.structure.kind == Structure::Kind::json_object || out.structure.kind == Structure::Kind::json_schema;
  if (!is_json) return ApiError::invalid(name, name + " needs a JSON schema");
  out.structure.blanks.pattern = join_surrogates(*pattern->string());
  return Done{};
}

ApiStatus read_structure(const PyJson& body, GenerationParameters& out) {
  using Kind = Structure::Kind;
  static constexpr std::pair<const char*, Kind> kTop[] = {
      {"guided_json", Kind::json_schema}, {"json_schema", Kind::json_schema}, {"guided_regex", Kind::regex},
      {"regex", Kind::regex},             {"guided_choice", Kind::choice},    {"guided_grammar", Kind::lark},
      {"structural_tag", Kind::structural_tag}};
  static constexpr std::pair<const char*, Kind> kInner[] = {{"json", Kind::json_schema}, {"regex", Kind::regex},
                                                            {"choice", Kind::choice},    {"grammar", Kind::lark},
                                                            {"json_object", Kind::json_object},
                                                            {"structural_tag", Kind::structural_tag}};
  if (const PyJson* outputs = body.get("structured_outputs")) {
    if (outputs->object() == nullptr) return wrong_type("structured_outputs", *outputs, "an object");
    for (const PyJson::Member& member : *outputs->object()) {
      if (member.value.is_null()) continue;
      const std::string name = "structured_outputs." + member.key;
      if (member.key == "whitespace_pattern" || member.key == "disable_any_whitespace") continue;  // read_blanks
      auto known = std::find_if(std::begin(kInner), std::end(kInner), [&](const auto& e) { return member.key == e.first; });
      if (known == std::end(kInner)) return ApiError::unsupported(name, name + " is not supported; known are json, regex, choice, grammar, json_object, structural_tag");
      if (known->second == Kind::json_object && member.value.boolean() != nullptr && !*member.value.boolean()) continue;
      TRY(set_structure(out, known->second, member.value, name));
    }
  }
  for (const auto& [name, kind] : kTop) {
    if (const PyJson* value = body.get(name)) TRY(set_structure(out, kind, *value, name));
  }
  if (const PyJson* format = body.get("response_format")) {
    const PyJson* type = format->find("type");
    if (format->object() == nullptr || type == nullptr || type->string() == nullptr) {
      return ApiError::invalid("response_format", "response_format must be an object with a type: text, json_object, json_schema or structural_tag");
    }
    const std::string& word = *type->string();
    if (word == "json_object") TRY(set_structure(out, Kind::json_object, *format, "response_format"));
    else if (word == "structural_tag") TRY(set_structure(out, Kind::structural_tag, *format, "response_format"));
    else if (word == "json_schema") {
      const PyJson* holder = format->get("json_schema");
      const PyJson* schema = holder == nullptr ? nullptr : holder->get("schema");
      if (schema == nullptr && holder != nullptr) schema = holder->get("custom_schema");
      if (schema == nullptr) return ApiError::invalid("response_format.json_schema.schema", "response_format.json_schema.schema is missing");
      TRY(set_structure(out, Kind::json_schema, *schema, "response_format.json_schema.schema"));
    } else if (word != "text") {
      return ApiError::invalid("response_format.type", "response_format.type must be text, json_object, json_schema or structural_tag");
    }
  }
  return Done{};
}

ApiStatus read_rest(const PyJson& body, Endpoint endpoint, GenerationParameters& out) {
  out.model = TRY(string_field(body, "model"));
  TRY(read_bool(body, {"return_token_ids"}, out.return_token_ids));
  TRY(read_bool(body, {"return_tokens_as_token_ids"}, out.tokens_as_ids));
  TRY(read_bool(body, {"include_reasoning"}, out.include_reasoning));
  TRY(read_bool(body, {"parallel_tool_calls"}, out.parallel_tool_calls));
  TRY(read_bool(body, {"cache_prompt"}, out.use_prefix_cache));
  if (auto salt = TRY(string_field(body, "cache_salt"))) {
    if (salt->empty() || num_characters(*salt) > 1024) {
      return out_of_range("cache_salt", "a string of " + std::to_string(num_characters(*salt)) + " characters", "1 to 1024 characters long");
    }
    out.cache_salt = *salt;
  }
  Named id = first_of(body, {"request_id", "rid"});
  if (id.name != nullptr) {
    out.request_id = *TRY(string_field(body, id.name));
    const bool fit = !out.request_id.empty() && out.request_id.size() <= 128 &&
                     std::all_of(out.request_id.begin(), out.request_id.end(), [](char c) { return c > ' ' && c < 0x7f; });
    if (!fit) return ApiError::invalid(id.name, std::string(id.name) + " must have 1 to 128 printable ASCII characters without blanks");
  }
  if (auto most = TRY(integer_field(body, "truncate_prompt_tokens"))) {
    if (*most < -1 || *most == 0) return out_of_range("truncate_prompt_tokens", std::to_string(*most), "-1 or at least 1");
    if (endpoint == Endpoint::chat && *most != -1) {
      return ApiError::unsupported("truncate_prompt_tokens", "truncate_prompt_tokens is not supported in a chat: a cut prompt has no format; leave out messages");
    }
    if (endpoint == Endpoint::completions) out.truncate_prompt = *most;
  }
  if (endpoint == Endpoint::completions) {
    TRY(read_bool(body, {"echo"}, out.echo));
    TRY(read_bool(body, {"add_special_tokens"}, out.add_special_tokens));
  } else if (const PyJson* modalities = body.get("modalities")) {
    const bool text_only = modalities->array() != nullptr && modalities->array()->size() == 1 &&
                           (*modalities->array())[0].string() != nullptr && *(*modalities->array())[0].string() == "text";
    if (!text_only) return ApiError::unsupported("modalities", "modalities is not supported beyond [\"text\"]");
  }
  return Done{};
}

}  // namespace

std::optional<int64_t> whole_number(const PyJson& value) {
  if (const PyJson::Integer* integer = value.integer()) {
    int64_t number = 0;
    const char* end = integer->digits.data() + integer->digits.size();
    auto read = std::from_chars(integer->digits.data(), end, number);
    if (read.ec == std::errc() && read.ptr == end) return number;
    return std::nullopt;
  }
  if (const double* real = value.real()) {
    constexpr double kExact = 9007199254740992.0;
    if (std::abs(*real) <= kExact && std::floor(*real) == *real) return static_cast<int64_t>(*real);
  }
  return std::nullopt;
}

ApiResult<std::optional<double>> number_field(const PyJson& body, const char* name) {
  const PyJson* value = body.get(name);
  if (value == nullptr) return std::optional<double>();
  if (auto whole = whole_number(*value)) return std::optional<double>(static_cast<double>(*whole));
  if (value->real() == nullptr) return wrong_type(name, *value, "a number");
  if (!std::isfinite(*value->real())) return ApiError::invalid(name, std::string(name) + " must be a finite number");
  return std::optional<double>(*value->real());
}

ApiResult<std::optional<int64_t>> integer_field(const PyJson& body, const char* name) {
  const PyJson* value = body.get(name);
  if (value == nullptr) return std::optional<int64_t>();
  auto whole = whole_number(*value);
  if (!whole) {
    if (value->integer() != nullptr) return ApiError::invalid(name, std::string(name) + " is too large a number");
    return wrong_type(name, *value, "a whole number");
  }
  return whole;
}

ApiResult<std::optional<bool>> bool_field(const PyJson& body, const char* name) {
  const PyJson* value = body.get(name);
  if (value == nullptr) return std::optional<bool>();
  if (value->boolean() == nullptr) return wrong_type(name, *value, "true or false");
  return std::optional<bool>(*value->boolean());
}

ApiResult<std::optional<std::string>> string_field(const PyJson& body, const char* name) {
  const PyJson* value = body.get(name);
  if (value == nullptr) return std::optional<std::string>();
  if (value->string() == nullptr) return wrong_type(name, *value, "a string");
  return std::optional<std::string>(join_surrogates(*value->string()));
}

ApiResult<GenerationParameters> read_parameters(const PyJson& body, Endpoint endpoint,
                                                const ParameterDefaults& defaults) {
  GenerationParameters out;
  out.sampling = defaults.sampling;
  TRY(check_fields(body, endpoint, out.notes));
  TRY(read_sampling(body, out));
  TRY(read_lengths(body, endpoint, out));
  TRY(read_stops(body, out, defaults.vocab_size));
  TRY(read_bias(body, out, defaults.vocab_size));
  out.allowed_token_ids = TRY(token_list(body, "allowed_token_ids", static_cast<size_t>(defaults.vocab_size), defaults.vocab_size));
  TRY(read_logprobs(body, endpoint, out));
  out.sampling.logprob_ids = TRY(token_list(body, "logprob_token_ids", kMaxLogprobIds, defaults.vocab_size));
  if (!out.sampling.logprob_ids.empty() && out.sampling.num_logprobs < 0) {
    return ApiError::invalid("logprob_token_ids", "logprob_token_ids needs logprobs");
  }
  if (endpoint == Endpoint::chat) TRY(read_thinking(body, out));
  TRY(read_stream(body, out));
  out.sampling.num_prompt_logprobs = TRY(logprob_count(body, "prompt_logprobs"));
  if (out.sampling.num_prompt_logprobs >= 0 && out.stream) {
    return ApiError::invalid("prompt_logprobs", "prompt_logprobs is not available with stream: true");
  }
  TRY(read_structure(body, out));
  TRY(read_blanks(body, out));
  TRY(read_rest(body, endpoint, out));
  Result<void> valid = out.sampling.validate(defaults.vocab_size);
  if (!valid) return ApiError::from(valid.error());
  return out;
}

}  // namespace bise
