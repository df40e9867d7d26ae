// What a request may ask of the sampler; validated once.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "base/error.h"

namespace bise {

struct SamplingParams {
  double temperature = 1.0;             // 0: greedy; [0, 2]
  double top_p = 1.0;                   // (0, 1]
  int32_t top_k = 0;                    // 0 or -1: off
  double min_p = 0.0;                   // [0, 1]
  double repetition_penalty = 1.0;      // > 0; over prompt and output (HF, vLLM)
  double presence_penalty = 0.0;        // [-2, 2]; over the output (OpenAI)
  double frequency_penalty = 0.0;       // [-2, 2]; over the output (OpenAI)
  std::map<int32_t, float> logit_bias;  // [-100, 100] each
  uint64_t seed = 0;
  int32_t max_tokens = 0;  // 0: to the end of the context
  int32_t min_tokens = 0;  // no stop token is drawn before so many others were
  bool ignore_eos = false;
  int32_t num_logprobs = -1;  // -1: none; 0: the chosen token only; at most 20
  // Tokens whose log-probabilities are wanted beside these; with num_logprobs >= 0.
  std::vector<int32_t> logprob_ids;
  // The same for every token of the prompt but the first, given those before it. Such a prompt is
  // computed whole: logits are not kept in a cache.
  int32_t num_prompt_logprobs = -1;
  std::vector<int32_t> stop_tokens;

  // Error names the parameter, the value and what is allowed.
  Result<void> validate(int32_t vocab_size) const;
};

}  // namespace bise
