// The parameters of a generation request, from the JSON body: every field that OpenAI, vLLM, SGLang,
// llama.cpp and Mistral define is in one table with its rule: obeyed, read and unused (it cannot
// change the answer), accepted only where it asks for nothing, or refused. What is mapped, clamped or
// unknown is written down in `notes` and told to the client in a header; nothing is dropped silently.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "chat/python_json.h"
#include "engine/sampling_params.h"
#include "server/api_error.h"
#include "server/lark_text.h"

namespace bise {

enum class FieldRule : uint8_t {
  obeyed,
  unused,      // read and unused: it cannot change the answer
  only_false,  // anything that asks for more is refused
  only_true,
  only_zero,   // 0 or -1
  only_one,
  only_empty,  // an empty list, object or string
  refused,
};
struct FieldRow {
  const char* name;
  FieldRule rule;
  const char* note;  // what to do instead, or what it means; for messages and docs/API.md
};
enum class Endpoint : uint8_t { chat, completions };
std::span<const FieldRow> field_table(Endpoint endpoint);

// What a client was not given as asked: shown in the headers x-bise-changed and x-bise-unused.
struct RequestNotes {
  std::vector<std::string> changed;  // "max_tokens=9000->812"
  std::vector<std::string> unused;   // names of fields
};

struct Structure {
  enum class Kind : uint8_t { none, json_object, json_schema, regex, choice, lark, structural_tag };
  Kind kind = Kind::none;
  std::string text;                   // schema or structural tag as JSON, regex, or grammar
  std::vector<std::string> choices;
  std::string param;                  // the field it came from, for messages
  JsonBlanks blanks;                  // of json_object and json_schema
};

struct GenerationParameters {
  std::optional<std::string> model;
  SamplingParams sampling;  // without stop tokens of the model
  bool max_tokens_given = false;
  bool seed_given = false;
  int32_t n = 1;
  std::vector<std::string> stop;
  std::vector<std::string> stop_regex;
  bool include_stop = false;
  std::vector<int32_t> allowed_token_ids;
  std::vector<std::string> bad_words;
  std::optional<int64_t> thinking_budget;  // chat: tokens

  bool stream = false, include_usage = false, continuous_usage = false;
  bool echo = false;
  bool include_reasoning = true;
  bool return_token_ids = false, tokens_as_ids = false;
  bool parallel_tool_calls = true;
  bool add_special_tokens = true;         // completions: BOS in front of a text prompt
  std::optional<int64_t> truncate_prompt;  // completions: keep so many tokens from the end
  Structure structure;
  std::string request_id, cache_salt;
  bool use_prefix_cache = true;
  RequestNotes notes;
};

struct ParameterDefaults {
  SamplingParams sampling;
  int32_t vocab_size = 0;
};

// `body`: an object. Checks every field of it.
ApiResult<GenerationParameters> read_parameters(const PyJson& body, Endpoint endpoint,
                                                const ParameterDefaults& defaults);

// Typed access; a missing or null field gives nothing, a wrong type names the field.
ApiResult<std::optional<double>> number_field(const PyJson& body, const char* name);
ApiResult<std::optional<int64_t>> integer_field(const PyJson& body, const char* name);
ApiResult<std::optional<bool>> bool_field(const PyJson& body, const char* name);
ApiResult<std::optional<std::string>> string_field(const PyJson& body, const char* name);
std::optional<int64_t> whole_number(const PyJson& value);

}  // namespace bise
