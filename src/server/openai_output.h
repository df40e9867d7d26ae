// Answers in OpenAI's JSON, streamed or whole, from the same deltas.
#pragma once

#include <string>
#include <vector>

#include "server/generation.h"
#include "server/json_writer.h"
#include "text/tokenizer.h"

namespace bise {

struct AnswerForm {
  bool is_chat = false;
  std::string id, model;
  int64_t created = 0;
  bool logprobs = false;          // of the tokens generated
  int32_t top_logprobs = 0;
  bool prompt_logprobs = false;
  bool tokens_as_ids = false, return_token_ids = false;
  bool include_reasoning = true;
  bool include_usage = false, continuous_usage = false;  // streams
  std::vector<std::string> echo;  // completions: the prompt's text in front of each choice; or empty
  bool echo_logprobs = false;
  int32_t echo_logprobs_top = 0;  // of each token of the prompt
  const Tokenizer* tokenizer = nullptr;
};

// A stream: each call gives the events for one or more deltas, ready to be sent.
class StreamWriter {
 public:
  StreamWriter(const AnswerForm& form, int32_t num_choices) : form_(form), begun_(static_cast<size_t>(num_choices)) {}
  std::string events(const std::vector<OutputDelta>& deltas, const Generation& generation);
  std::string heartbeat() const;  // a chunk whose delta is empty
  // What stands behind the last delta: usage when asked for, [DONE].
  std::string end(const GenerationUsage& usage) const;
  std::string failure(const ApiError& error) const;

 private:
  void chunk_head(std::string& out) const;
  void chunk(std::string& out, const OutputDelta& delta, const Generation& generation);
  void chat_delta(JsonWriter& json, const OutputDelta& delta) const;

  const AnswerForm& form_;
  struct ChoiceState {
    bool begun = false;
    int64_t text_offset = 0;
  };
  std::vector<ChoiceState> begun_;
};

// A whole answer.
class AnswerCollector {
 public:
  AnswerCollector(const AnswerForm& form, int32_t num_choices) : form_(form), choices_(static_cast<size_t>(num_choices)) {}
  void add(const std::vector<OutputDelta>& deltas);
  std::string json(const Generation& generation, int32_t answers_per_prompt) const;

 private:
  struct Call {
    std::string id, name, arguments;
  };
  struct Choice {
    std::string content, reasoning, finish_reason;
    std::vector<Call> calls;
    std::vector<SampledToken> tokens;
    std::optional<std::string> stop_string;
    std::optional<int32_t> stop_token;
  };
  void chat_choice(JsonWriter& json, const Choice& choice) const;
  void text_choice(JsonWriter& json, size_t index, const Choice& choice, const Generation& generation, size_t prompt) const;

  const AnswerForm& form_;
  std::vector<Choice> choices_;
};

void write_usage(JsonWriter& json, const GenerationUsage& usage);

}  // namespace bise
