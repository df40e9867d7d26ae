// Log-probabilities in the three forms of OpenAI's and vLLM's answers.
#pragma once

#include <string>
#include <vector>

#include "engine/sampler.h"
#include "server/json_writer.h"
#include "text/tokenizer.h"

namespace bise {

// How a token is shown: its text, "token_id:N", or "bytes:\x.." where it is no UTF-8 by itself.
struct TokenNames {
  const Tokenizer* tokenizer = nullptr;
  bool as_ids = false;
  std::string operator()(int32_t id) const;
};

// {"content": [{token, logprob, bytes, top_logprobs: […]}], "refusal": null}
void write_chat_logprobs(JsonWriter& json, const std::vector<SampledToken>& tokens, int32_t top, const TokenNames& names);

// {"tokens", "token_logprobs", "top_logprobs", "text_offset"}; a first token without logprob (of a
// prompt) is written as null. `offset`: characters before the first; moved behind the last.
void write_text_logprobs(JsonWriter& json, const std::vector<SampledToken>& tokens, bool first_is_null, int32_t top,
                         const TokenNames& names, int64_t& offset);

// vLLM's prompt_logprobs: [null, {"id": {logprob, rank, decoded_token}}, …]
void write_prompt_logprobs(JsonWriter& json, const std::vector<SampledToken>& tokens, int32_t top, const TokenNames& names);

}  // namespace bise
