#include "server/token_logprobs.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/utf8.h"

namespace bise {
namespace {

// JSON has no infinity; this is what OpenAI and vLLM write for it.
double finite(float logprob) { return std::isfinite(logprob) ? static_cast<double>(logprob) : -9999.0; }

int64_t num_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

void write_bytes(JsonWriter& json, std::string_view bytes) {
  json.begin_array();
  for (char c : bytes) json.value(static_cast<int32_t>(static_cast<unsigned char>(c)));
  json.end_array();
}

}  // namespace

std::string TokenNames::operator()(int32_t id) const {
  if (as_ids) return "token_id:" + std::to_string(id);
  std::string_view bytes = tokenizer->token_bytes(id);
  if (is_valid_utf8(bytes)) return std::string(bytes);
  std::string out = "bytes:";
  for (char c : bytes) {
    char text[8];
    std::snprintf(text, sizeof text, "\\x%02x", static_cast<unsigned char>(c));
    out += text;
  }
  return out;
}

void write_chat_logprobs(JsonWriter& json, const std::vector<SampledToken>& tokens, int32_t top, const TokenNames& names) {
  json.begin_object().key("content").begin_array();
  auto entry = [&](int32_t id, float logprob) {
    json.field("token", names(id)).field("logprob", finite(logprob)).key("bytes");
    write_bytes(json, names.tokenizer->token_bytes(id));
  };
  for (const SampledToken& token : tokens) {
    json.begin_object();
    entry(token.id, token.logprob);
    json.key("top_logprobs").begin_array();
    for (size_t i = 0; i < token.top.size() && i < static_cast<size_t>(std::max(top, 0)); ++i) {
      json.begin_object();
      entry(token.top[i].id, token.top[i].logprob);
      json.end_object();
    }
    json.end_array().end_object();
  }
  json.end_array().key("refusal").null().end_object();
}

void write_text_logprobs(JsonWriter& json, const std::vector<SampledToken>& tokens, bool first_is_null, int32_t top,
                         const TokenNames& names, int64_t& offset) {
  json.begin_object().key("tokens").begin_array();
  for (const SampledToken& token : tokens) json.value(names(token.id));
  json.end_array().key("token_logprobs").begin_array();
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (first_is_null && i == 0) json.null();
    else json.value(finite(tokens[i].logprob));
  }
  json.end_array().key("top_logprobs").begin_array();
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (first_is_null && i == 0) {
      json.null();
      continue;
    }
    json.begin_object();
    bool has_chosen = false;
    for (size_t k = 0; k < tokens[i].top.size() && k < static_cast<size_t>(std::max(top, 0)); ++k) {
      has_chosen = has_chosen || tokens[i].top[k].id == tokens[i].id;
      json.field(names(tokens[i].top[k].id), finite(tokens[i].top[k].logprob));
    }
    if (!has_chosen) json.field(names(tokens[i].id), finite(tokens[i].logprob));
    json.end_object();
  }
  json.end_array().key("text_offset").begin_array();
  TokenNames plain{names.tokenizer, false};
  for (const SampledToken& token : tokens) {
    json.value(offset);
    offset += num_characters(plain(token.id));
  }
  json.end_array().end_object();
}

void write_prompt_logprobs(JsonWriter& json, const std::vector<SampledToken>& tokens, int32_t top, const TokenNames& names) {
  json.begin_array().null();
  for (const SampledToken& token : tokens) {
    json.begin_object();
    auto entry = [&](int32_t id, float logprob, size_t rank) {
      json.key(std::to_string(id)).begin_object().field("logprob", finite(logprob)).key("rank");
      if (rank > 0) json.value(rank);
      else json.null();  // beyond those that were looked at
      json.field("decoded_token", names(id)).end_object();
    };
    bool has_chosen = false;
    for (size_t k = 0; k < token.top.size() && k < static_cast<size_t>(std::max(top, 0)); ++k) {
      has_chosen = has_chosen || token.top[k].id == token.id;
      entry(token.top[k].id, token.top[k].logprob, k + 1);
    }
    if (!has_chosen) entry(token.id, token.logprob, 0);
    json.end_object();
  }
  json.end_array();
}

}  // namespace bise
