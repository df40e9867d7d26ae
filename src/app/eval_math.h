// The statistics of `bise eval`.
#pragma once

#include <span>

namespace bise {

struct Perplexity {
  double value = 0;  // exp of the mean of -logprobs
  double error = 0;  // standard error, from the spread of the logprobs (first order)
};
Perplexity perplexity(std::span<const double> logprobs);

// The perplexity of `logprobs` over that of `base`, of the same tokens one by one. The error is that of the paired
// difference: far smaller than those of the two.
struct PerplexityRatio {
  double value = 0, error = 0;
};
PerplexityRatio perplexity_ratio(std::span<const double> logprobs, std::span<const double> base);

}  // namespace bise
