#include "engine/step_cost.h"

#include <algorithm>
#include <cmath>

namespace bise {
namespace {

// After so many steps with prompts a step without is run, to see what decodes alone take now.
constexpr uint64_t kRefreshSteps = 256;
// Steps that another program disturbed must not pass for the cost: a sample counts for so many times
// what was expected at most. A real change comes through in a few steps all the same.
constexpr double kMaxRatio = 2.0;

FadingFit<3>::Vector features(const StepShape& shape) {
  return {1.0, static_cast<double>(shape.decode_rows), shape.decode_attended};
}
FadingFit<2>::Vector prompt_features(const StepShape& shape) {
  return {static_cast<double>(shape.prompt_rows), shape.prompt_attended};
}

}  // namespace

template <int kFeatures>
void FadingFit<kFeatures>::add(const Vector& x, double y) {
  for (size_t i = 0; i < x.size(); ++i) {
    for (size_t j = 0; j < x.size(); ++j) {
      products_[i][j] = keep_ * products_[i][j] + x[i] * x[j];
    }
    moments_[i] = keep_ * moments_[i] + x[i] * y;
  }
  // Minimises the squares plus a pull to where each coefficient stood, one coordinate at a time.
  constexpr double kPull = 0.01;
  constexpr int kSweeps = 40;
  const Vector before = coefficients_;
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    for (size_t i = 0; i < x.size(); ++i) {
      if (products_[i][i] <= 0.0) continue;
      double pull = kPull * products_[i][i];
      double rest = moments_[i] + pull * before[i];
      for (size_t j = 0; j < x.size(); ++j) {
        if (j != i) rest -= products_[i][j] * coefficients_[j];
      }
      coefficients_[i] = std::max(0.0, rest / (products_[i][i] + pull));
    }
  }
}

template <int kFeatures>
double FadingFit<kFeatures>::at(const Vector& x) const {
  double sum = 0.0;
  for (size_t i = 0; i < x.size(); ++i) sum += coefficients_[i] * x[i];
  return sum;
}

void StepCost::observe(const StepShape& shape, double seconds) {
  if (shape.decode_rows == 0) {
    // Whole chunks are cheaper by the token than the few rows beside decodes, but better than
    // nothing to start from.
    if (num_mixed_ == 0 && shape.prompt_rows >= kMinChunk) {
      prompts_.assume({seconds / shape.prompt_rows, 0.0});
    }
    return;
  }
  ++steps_;
  if (shape.prompt_rows == 0) {
    double expected = decodes_.at(features(shape));
    bool is_known = measured_rows_.count(shape.decode_rows) > 0;
    decodes_.add(features(shape), is_known ? std::min(seconds, kMaxRatio * expected) : seconds);
    measured_rows_[shape.decode_rows] = steps_;
    return;
  }
  double expected = decode_seconds(shape) + extra_seconds(shape);
  if (num_mixed_ > 0 && expected > 0.0) {
    ratios_[num_ratios_++ % ratios_.size()] = static_cast<float>(seconds / expected);
    seconds = std::min(seconds, kMaxRatio * expected);
  }
  ++num_mixed_;
  prompts_.add(prompt_features(shape), std::max(0.0, seconds - decode_seconds(shape)));
}

bool StepCost::wants_decodes_alone(const StepShape& decodes) const {
  auto it = measured_rows_.find(decodes.decode_rows);
  return it == measured_rows_.end() || steps_ - it->second > kRefreshSteps;
}

double StepCost::decode_seconds(const StepShape& decodes) const {
  return decodes_.at(features(decodes));
}
double StepCost::extra_seconds(const StepShape& shape) const {
  return prompts_.at(prompt_features(shape));
}
double StepCost::prompt_token_seconds() const { return prompts_.coefficients()[0]; }

// By how much the slow ones of the last mixed steps took longer than expected.
double StepCost::slowness() const {
  size_t count = std::min(num_ratios_, ratios_.size());
  if (count < 8) return 1.25;
  std::array<float, 64> sorted = ratios_;
  auto at = sorted.begin() + static_cast<ptrdiff_t>(count * 19 / 20);
  std::nth_element(sorted.begin(), at, sorted.begin() + static_cast<ptrdiff_t>(count));
  return std::clamp(static_cast<double>(*at), 1.0, 1.5);
}

int32_t StepCost::prompt_tokens(const StepShape& shape, int32_t position, double bound) const {
  constexpr int32_t kMany = 1 << 20;
  const int32_t least = std::max(0, kMinChunk - shape.prompt_rows);
  double left = bound / slowness() - decode_seconds(shape) - extra_seconds(shape);
  if (left <= 0.0) return least;
  // left = per_token * n + per_attended * (n * position + n^2 / 2)
  const auto& [per_token, per_attended] = prompts_.coefficients();
  double linear = per_token + per_attended * position;
  double n = kMany;
  if (per_attended > 0.0) {
    n = (std::sqrt(linear * linear + 2.0 * per_attended * left) - linear) / per_attended;
  } else if (linear > 0.0) {
    n = left / linear;
  } else {
    n = 2 * kMinChunk;  // nothing is known yet: a small one, to learn from
  }
  int32_t tokens = static_cast<int32_t>(std::min(n, static_cast<double>(kMany)));
  // Kernels take rows in fours.
  if (tokens > 2 * kMinChunk) tokens -= tokens % kMinChunk;
  return std::max(tokens, least);
}

}  // namespace bise
