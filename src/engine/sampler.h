// Sampler: logits of one position to one token. The chain, one function each, in the order of
// transformers and vLLM:
//
//   repetition penalty, frequency and presence penalties, logit bias    on the logits
//   token mask, no stop token before min_tokens                         what is not allowed: -infinity
//   temperature                                                         0: greedy, and nothing below
//   top-k, top-p, min-p                                                 each keeps a prefix of the
//                                                                       tokens, most likely first
//   draw                                                                from what is kept, in that order;
//                                                                       of all tokens in that of their ids
//
// Ties go to the lowest id everywhere. A draw is a function of (seed, position) only.
// Log-probabilities are those of the raw logits, before penalties and temperature, as in the APIs
// of OpenAI and vLLM. Host only; knows nothing of text. No function here keeps state between calls.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <unordered_map>
#include <vector>

#include "backend/logit_math.h"
#include "base/error.h"
#include "engine/sampling_params.h"

namespace bise {

// Separates the sampler's draws from others under the same seed.
constexpr uint64_t kSamplerStream = 0x73616d70;

struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0.0f;
};

struct SampledToken {
  int32_t id = 0;
  // With num_logprobs >= 0: of the chosen token, and the num_logprobs most likely ones, best first;
  // behind them those of logprob_ids that are not among them, in their order.
  float logprob = 0.0f;
  std::vector<TokenLogprob> top;
};

// How often ids were seen, kept by the sequence; the penalties read it.
class TokenCounts {
 public:
  void add_prompt(std::span<const int32_t> ids) {
    for (int32_t id : ids) counts_[id];
  }
  void add_output(int32_t id) { ++counts_[id]; }
  // id -> count in the output; every id of the prompt is a key.
  const std::unordered_map<int32_t, int32_t>& counts() const { return counts_; }

 private:
  std::unordered_map<int32_t, int32_t> counts_;
};

// Positive logits are divided by the penalty, negative ones multiplied, for every id of prompt and
// output (Keskar et al. 2019; transformers, vLLM).
void apply_repetition_penalty(std::span<float> logits, const TokenCounts& counts, double penalty);
// logit -= frequency * count + (count > 0) * presence, over the output (OpenAI).
void apply_count_penalties(std::span<float> logits, const TokenCounts& counts, double frequency,
                           double presence);
void apply_logit_bias(std::span<float> logits, const std::map<int32_t, float>& bias);
// The log of the sum of exp(logits).
double log_sum_exp(std::span<const float> logits);
// The `count` most likely tokens of the raw logits, best first.
std::vector<TokenLogprob> top_logprobs(std::span<const float> logits, int32_t count,
                                       double log_sum);

// The tokens that temperature, top-k, top-p and min-p leave, most likely first, with probabilities
// that add up to 1. Slow: sorts everything. sample() gives the same tokens without sorting all.
struct TokenProbability {
  int32_t id = 0;
  double probability = 0.0;
};
std::vector<TokenProbability> kept_tokens(std::span<const float> logits,
                                          const SamplingParams& params);

// What may be drawn.
struct DrawLimits {
  std::span<const uint32_t> allowed;  // a bit per token, as in TokenMask::fill; empty: all
  // No stop token of the params, unless nothing else is allowed.
  bool no_stop_tokens = false;
};

// `logits` are changed. `position`: index in the sequence of the token to be drawn. Error: logits
// that are not numbers, or where everything is -infinity; a mask that allows nothing.
Result<SampledToken> sample(std::span<float> logits, const SamplingParams& params,
                            const TokenCounts& counts, int64_t position,
                            const DrawLimits& limits = {},
                            const LogitMath& math = scalar_logit_math());

// The log-probability of a given token and the `count` most likely ones.
SampledToken token_logprobs(std::span<const float> logits, int32_t id, int32_t count,
                            const LogitMath& math = scalar_logit_math());

}  // namespace bise
