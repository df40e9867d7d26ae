#include "app/eval_math.h"

#include <cmath>
#include <vector>

#include "base/error.h"

namespace bise {
namespace {

struct Mean {
  double value, error;
};
Mean mean_of(std::span<const double> values) {
  const auto n = static_cast<double>(values.size());
  double sum = 0, squares = 0;
  for (double v : values) sum += v;
  const double mean = sum / n;
  for (double v : values) squares += (v - mean) * (v - mean);
  return {mean, values.size() < 2 ? 0 : std::sqrt(squares / (n - 1) / n)};
}

}  // namespace

Perplexity perplexity(std::span<const double> logprobs) {
  CHECK(!logprobs.empty());
  const Mean mean = mean_of(logprobs);
  const double value = std::exp(-mean.value);
  return {value, value * mean.error};
}

PerplexityRatio perplexity_ratio(std::span<const double> logprobs, std::span<const double> base) {
  CHECK(!logprobs.empty() && logprobs.size() == base.size());
  std::vector<double> differences(logprobs.size());
  for (size_t i = 0; i < differences.size(); ++i) differences[i] = base[i] - logprobs[i];
  const Mean mean = mean_of(differences);
  const double value = std::exp(mean.value);
  return {value, value * mean.error};
}

}  // namespace bise
