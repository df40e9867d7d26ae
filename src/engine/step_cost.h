// StepCost: how long a step takes, learnt from the steps that were measured, so that a chunk of a
// prompt can be cut to the time there is beside running decodes.
//
//   seconds(decodes)            = a + b * rows + c * attended            from steps without prompts
//   seconds(prompt beside them) = d * rows + e * attended                from what mixed steps take more
//
// `attended` counts the cached tokens that rows look back on. All coefficients are at least 0, and
// old steps fade. Whether the sums come out is watched, too: the bound is kept for the slow ones.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>

namespace bise {

struct StepShape {
  int32_t decode_rows = 0;
  double decode_attended = 0.0;
  int32_t prompt_rows = 0;
  double prompt_attended = 0.0;
};

// Least squares over few features, none with a negative coefficient. Old samples fade; a direction
// in which the samples say nothing stays as it was.
template <int kFeatures>
class FadingFit {
 public:
  using Vector = std::array<double, static_cast<size_t>(kFeatures)>;
  explicit FadingFit(double memory) : keep_(1.0 - 1.0 / memory) {}
  void add(const Vector& x, double y);
  double at(const Vector& x) const;
  // Where to stand before there are samples.
  void assume(const Vector& coefficients) { coefficients_ = coefficients; }
  const Vector& coefficients() const { return coefficients_; }

 private:
  double keep_;  // of the weight of older samples, at each new one
  std::array<Vector, static_cast<size_t>(kFeatures)> products_{};
  Vector moments_{};
  Vector coefficients_{};
};

class StepCost {
 public:
  // What a step took, all of it but the pictures.
  void observe(const StepShape& shape, double seconds);

  // Whether the next step should be one of decodes alone, because what such a step takes is not
  // known (any more).
  bool wants_decodes_alone(const StepShape& decodes) const;
  // Of a step without prompts; 0 while nothing is known.
  double decode_seconds(const StepShape& decodes) const;
  // How many tokens of a prompt, the first of them at `position`, fit into a step of `bound`
  // seconds that has the decodes and prompt rows of `shape` already. At least kMinChunk in all, so
  // that prompts move whatever the bound.
  int32_t prompt_tokens(const StepShape& shape, int32_t position, double bound) const;
  // What one more token of a prompt adds to a step with decodes.
  double prompt_token_seconds() const;

  static constexpr int32_t kMinChunk = 4;

 private:
  double extra_seconds(const StepShape& shape) const;
  double slowness() const;

  FadingFit<3> decodes_{32.0};
  FadingFit<2> prompts_{32.0};
  uint64_t steps_ = 0;                         // with decodes
  std::map<int32_t, uint64_t> measured_rows_;  // decode rows -> when such a step was alone
  int num_mixed_ = 0;
  // Measured / expected of the last mixed steps.
  std::array<float, 64> ratios_{};
  size_t num_ratios_ = 0;
};

}  // namespace bise
