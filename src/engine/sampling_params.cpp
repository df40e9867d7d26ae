#include "engine/sampling_params.h"

#include <cmath>
#include <cstdio>
#include <string>

namespace bise {
namespace {

std::string number_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

Error out_of_range(const char* name, const std::string& value, const std::string& allowed) {
  return Error(ErrorCode::invalid_argument,
               std::string(name) + " is " + value + "; it must be " + allowed)
      .with_param(name);
}

// NaN fails as well: it is in no range.
Result<void> check_range(const char* name, double value, double low, double high) {
  if (value >= low && value <= high) return {};
  return out_of_range(name, number_text(value),
                      "from " + number_text(low) + " to " + number_text(high));
}

}  // namespace

Result<void> SamplingParams::validate(int32_t vocab_size) const {
  TRY(check_range("temperature", temperature, 0.0, 2.0));
  if (!(top_p > 0.0 && top_p <= 1.0)) {
    return out_of_range("top_p", number_text(top_p), "above 0 and at most 1");
  }
  if (top_k < -1) {
    return out_of_range("top_k", std::to_string(top_k), "a positive number, or 0 or -1 for off");
  }
  TRY(check_range("min_p", min_p, 0.0, 1.0));
  if (!(repetition_penalty > 0.0 && std::isfinite(repetition_penalty))) {
    return out_of_range("repetition_penalty", number_text(repetition_penalty), "above 0");
  }
  TRY(check_range("presence_penalty", presence_penalty, -2.0, 2.0));
  TRY(check_range("frequency_penalty", frequency_penalty, -2.0, 2.0));
  for (const auto& [id, bias] : logit_bias) {
    if (id < 0 || id >= vocab_size) {
      return out_of_range("logit_bias", "given for token " + std::to_string(id),
                          "for tokens from 0 to " + std::to_string(vocab_size - 1));
    }
    TRY(check_range("logit_bias", static_cast<double>(bias), -100.0, 100.0));
  }
  for (int32_t id : stop_tokens) {
    if (id < 0 || id >= vocab_size) {
      return out_of_range("stop_token_ids", "token " + std::to_string(id),
                          "tokens from 0 to " + std::to_string(vocab_size - 1));
    }
  }
  for (int32_t id : logprob_ids) {
    if (id < 0 || id >= vocab_size) {
      return out_of_range("logprob_token_ids", "token " + std::to_string(id),
                          "tokens from 0 to " + std::to_string(vocab_size - 1));
    }
  }
  if (max_tokens < 0) {
    return out_of_range("max_tokens", std::to_string(max_tokens),
                        "a positive number, or 0 for all that the context holds");
  }
  if (min_tokens < 0 || (max_tokens > 0 && min_tokens > max_tokens)) {
    return out_of_range("min_tokens", std::to_string(min_tokens),
                        max_tokens > 0 ? "from 0 to max_tokens, " + std::to_string(max_tokens)
                                       : "0 or more");
  }
  if (num_prompt_logprobs < -1 || num_prompt_logprobs > 20) {
    return out_of_range("prompt_logprobs", std::to_string(num_prompt_logprobs), "from 0 to 20");
  }
  if (num_logprobs < -1 || num_logprobs > 20) {
    return out_of_range("top_logprobs", std::to_string(num_logprobs), "from 0 to 20");
  }
  return {};
}

}  // namespace bise
