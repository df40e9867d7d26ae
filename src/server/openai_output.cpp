#include "server/openai_output.h"

#include <algorithm>

#include "server/token_logprobs.h"

namespace bise {
namespace {

TokenNames names_of(const AnswerForm& form) { return {form.tokenizer, form.tokens_as_ids}; }

void write_ids(JsonWriter& json, const std::vector<SampledToken>& tokens) {
  json.begin_array();
  for (const SampledToken& token : tokens) json.value(token.id);
  json.end_array();
}

void write_ids(JsonWriter& json, const std::vector<int32_t>& ids) {
  json.begin_array();
  for (int32_t id : ids) json.value(id);
  json.end_array();
}

void write_stop_reason(JsonWriter& json, const std::optional<std::string>& text, std::optional<int32_t> token) {
  json.key("stop_reason");
  if (text) json.value(*text);
  else if (token) json.value(*token);
  else json.null();
}

int64_t num_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

// Of a prompt, for echo; with more than `top` the answer's list and the prompt's own would differ.
std::vector<SampledToken> prompt_tokens(const Generation& generation, size_t prompt, int32_t top) {
  std::vector<SampledToken> tokens;
  tokens.push_back({generation.prompt_ids(prompt).at(0), 0.0f, {}});
  for (SampledToken token : generation.prompt_logprobs(prompt)) {
    token.top.resize(std::min(token.top.size(), static_cast<size_t>(top)));
    tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace

void write_usage(JsonWriter& json, const GenerationUsage& usage) {
  json.begin_object()
      .field("prompt_tokens", usage.prompt_tokens)
      .field("completion_tokens", usage.completion_tokens)
      .field("total_tokens", usage.prompt_tokens + usage.completion_tokens);
  json.key("prompt_tokens_details").begin_object().field("cached_tokens", usage.cached_tokens).field("image_tokens", usage.image_tokens).end_object();
  json.key("completion_tokens_details").begin_object().field("reasoning_tokens", usage.reasoning_tokens).end_object();
  json.end_object();
}

void StreamWriter::chunk_head(std::string& out) const {
  out += "data: ";
  JsonWriter json(out);
  json.begin_object()
      .field("id", form_.id)
      .field("object", form_.is_chat ? "chat.completion.chunk" : "text_completion")
      .field("created", form_.created)
      .field("model", form_.model);
  out += ",\"choices\":[";
}

void StreamWriter::chat_delta(JsonWriter& json, const OutputDelta& delta) const {
  json.key("delta").begin_object();
  switch (delta.kind) {
    case OutputDelta::Kind::content: json.field("content", delta.text); break;
    case OutputDelta::Kind::reasoning: json.field("reasoning_content", delta.text).field("reasoning", delta.text); break;
    case OutputDelta::Kind::call_begin:
      json.key("tool_calls").begin_array().begin_object().field("index", delta.call_index).field("id", delta.call_id).field("type", "function");
      json.key("function").begin_object().field("name", delta.call_name).field("arguments", "").end_object();
      json.end_object().end_array();
      break;
    case OutputDelta::Kind::call_arguments:
      json.key("tool_calls").begin_array().begin_object().field("index", delta.call_index);
      json.key("function").begin_object().field("arguments", delta.text).end_object();
      json.end_object().end_array();
      break;
    case OutputDelta::Kind::finish: break;
  }
  json.end_object();
}

void StreamWriter::chunk(std::string& out, const OutputDelta& delta, const Generation& generation) {
  ChoiceState& state = begun_[static_cast<size_t>(delta.choice)];
  const bool is_finish = delta.kind == OutputDelta::Kind::finish;
  std::string echo;
  if (!state.begun) {
    state.begun = true;
    if (form_.is_chat) {
      chunk_head(out);
      JsonWriter json(out);
      json.begin_object().field("index", delta.choice);
      json.key("delta").begin_object().field("role", "assistant").field("content", "").end_object();
      if (form_.return_token_ids) {
        json.key("prompt_token_ids");
        write_ids(json, generation.prompt_ids(0));
      }
      json.key("logprobs").null().key("finish_reason").null().end_object();
      out += "]}\n\n";
    } else if (!form_.echo.empty()) {
      echo = form_.echo[static_cast<size_t>(delta.choice)];
      state.text_offset = num_characters(echo);
    }
  }
  chunk_head(out);
  JsonWriter json(out);
  json.begin_object().field("index", delta.choice);
  if (form_.is_chat) chat_delta(json, delta);
  else json.field("text", echo + delta.text);
  json.key("logprobs");
  if (!form_.logprobs || delta.tokens.empty()) json.null();
  else if (form_.is_chat) write_chat_logprobs(json, delta.tokens, form_.top_logprobs, names_of(form_));
  else write_text_logprobs(json, delta.tokens, false, form_.top_logprobs, names_of(form_), state.text_offset);
  json.key("finish_reason");
  if (is_finish) json.value(delta.finish_reason);
  else json.null();
  if (is_finish) write_stop_reason(json, delta.stop_string, delta.stop_token);
  if (form_.return_token_ids) {
    json.key("token_ids");
    write_ids(json, delta.tokens);
  }
  json.end_object();
  out += ']';
  if (form_.continuous_usage) {
    out += ",\"usage\":";
    JsonWriter usage(out);
    write_usage(usage, generation.usage());
  }
  out += "}\n\n";
}

std::string StreamWriter::events(const std::vector<OutputDelta>& deltas, const Generation& generation) {
  std::string out;
  for (const OutputDelta& delta : deltas) {
    if (delta.kind == OutputDelta::Kind::reasoning && !form_.include_reasoning) continue;
    chunk(out, delta, generation);
  }
  return out;
}

std::string StreamWriter::heartbeat() const {
  std::string out;
  chunk_head(out);
  out += form_.is_chat ? R"({"index":0,"delta":{},"logprobs":null,"finish_reason":null}]})"
                       : R"({"index":0,"text":"","logprobs":null,"finish_reason":null}]})";
  return out + "\n\n";
}

std::string StreamWriter::end(const GenerationUsage& usage) const {
  std::string out;
  if (form_.include_usage) {
    chunk_head(out);
    out += "],\"usage\":";
    JsonWriter json(out);
    write_usage(json, usage);
    out += "}\n\n";
  }
  return out + "data: [DONE]\n\n";
}

std::string StreamWriter::failure(const ApiError& error) const {
  return "data: " + error_json(error) + "\n\ndata: [DONE]\n\n";
}

void AnswerCollector::add(const std::vector<OutputDelta>& deltas) {
  for (const OutputDelta& delta : deltas) {
    Choice& choice = choices_[static_cast<size_t>(delta.choice)];
    choice.tokens.insert(choice.tokens.end(), delta.tokens.begin(), delta.tokens.end());
    switch (delta.kind) {
      case OutputDelta::Kind::content: choice.content += delta.text; break;
      case OutputDelta::Kind::reasoning: choice.reasoning += delta.text; break;
      case OutputDelta::Kind::call_begin: choice.calls.push_back({delta.call_id, delta.call_name, ""}); break;
      case OutputDelta::Kind::call_arguments: choice.calls.at(static_cast<size_t>(delta.call_index)).arguments += delta.text; break;
      case OutputDelta::Kind::finish:
        choice.finish_reason = delta.finish_reason;
        choice.stop_string = delta.stop_string;
        choice.stop_token = delta.stop_token;
        break;
    }
  }
}

void AnswerCollector::chat_choice(JsonWriter& json, const Choice& choice) const {
  json.key("message").begin_object().field("role", "assistant").key("content");
  if (choice.content.empty() && (!choice.calls.empty() || !choice.reasoning.empty())) json.null();
  else json.value(choice.content);
  json.key("refusal").null();
  if (!choice.reasoning.empty() && form_.include_reasoning) {
    json.field("reasoning_content", choice.reasoning).field("reasoning", choice.reasoning);
  }
  if (!choice.calls.empty()) {
    json.key("tool_calls").begin_array();
    for (const Call& call : choice.calls) {
      json.begin_object().field("id", call.id).field("type", "function");
      json.key("function").begin_object().field("name", call.name).field("arguments", call.arguments).end_object();
      json.end_object();
    }
    json.end_array();
  }
  json.end_object().key("logprobs");
  if (form_.logprobs) write_chat_logprobs(json, choice.tokens, form_.top_logprobs, names_of(form_));
  else json.null();
}

void AnswerCollector::text_choice(JsonWriter& json, size_t index, const Choice& choice, const Generation& generation,
                                  size_t prompt) const {
  const std::string echo = form_.echo.empty() ? "" : form_.echo[index];
  json.field("text", echo + choice.content).key("logprobs");
  if (form_.logprobs) {
    std::vector<SampledToken> tokens;
    int64_t offset = form_.echo_logprobs ? 0 : num_characters(echo);
    if (form_.echo_logprobs) tokens = prompt_tokens(generation, prompt, form_.echo_logprobs_top);
    tokens.insert(tokens.end(), choice.tokens.begin(), choice.tokens.end());
    write_text_logprobs(json, tokens, form_.echo_logprobs, form_.top_logprobs, names_of(form_), offset);
  } else {
    json.null();
  }
  if (form_.prompt_logprobs) {
    json.key("prompt_logprobs");
    write_prompt_logprobs(json, generation.prompt_logprobs(prompt), 20, names_of(form_));
  }
}

std::string AnswerCollector::json(const Generation& generation, int32_t answers_per_prompt) const {
  std::string out;
  JsonWriter json(out);
  json.begin_object()
      .field("id", form_.id)
      .field("object", form_.is_chat ? "chat.completion" : "text_completion")
      .field("created", form_.created)
      .field("model", form_.model);
  json.key("choices").begin_array();
  for (size_t i = 0; i < choices_.size(); ++i) {
    const Choice& choice = choices_[i];
    const size_t prompt = i / static_cast<size_t>(answers_per_prompt);
    json.begin_object().field("index", i);
    if (form_.is_chat) chat_choice(json, choice);
    else text_choice(json, i, choice, generation, prompt);
    json.field("finish_reason", choice.finish_reason);
    write_stop_reason(json, choice.stop_string, choice.stop_token);
    if (form_.return_token_ids) {
      json.key("token_ids");
      write_ids(json, choice.tokens);
      json.key("prompt_token_ids");
      write_ids(json, generation.prompt_ids(prompt));
    }
    json.end_object();
  }
  json.end_array();
  if (form_.is_chat && form_.prompt_logprobs) {
    json.key("prompt_logprobs");
    write_prompt_logprobs(json, generation.prompt_logprobs(0), 20, names_of(form_));
  }
  json.key("usage");
  write_usage(json, generation.usage());
  json.end_object();
  return out + "\n";
}

}  // namespace bise
