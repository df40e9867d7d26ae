// The arithmetic behind the rows of `bise bench`: spread of samples, operations and bytes of a step.
#pragma once

#include <cstdint>
#include <vector>

#include "model/model_config.h"

namespace bise {

struct Spread {
  double min = 0, median = 0, max = 0;
};
// Zeros when there are no values. Of an even count the median is the mean of the middle two.
Spread spread_of(std::vector<double> values);
// Of parts[i] / wholes[i], which were measured next to each other.
Spread ratios_of(const std::vector<double>& parts, const std::vector<double>& wholes);

// Rates, each with its limit as it was just before and after: memory and disks that others share, and virtual processors that
// move, change by half within seconds, so only neighbours compare.
class LimitedRates {
 public:
  void add(double rate, double limit_before, double limit_after);
  Spread rates() const { return spread_of(rates_); }
  Spread limits() const { return spread_of(limits_); }
  Spread shares() const { return ratios_of(rates_, limits_); }  // of each rate in the mean of its two limits
  bool empty() const { return rates_.empty(); }

 private:
  std::vector<double> rates_, limits_;
};

// Products and additions of one token in the matrices of the layers (2 per weight).
double linear_flops_per_token(const ModelConfig& config);
// Of the head, for one position.
double head_flops(const ModelConfig& config);
// Of attention (Q K and P V) for queries at the positions [first, first + count), each seeing itself and all
// before it, or as much of it as the sliding window lets it see.
double attention_flops(const ModelConfig& config, int64_t first, int64_t count);
// A prompt of so many tokens from an empty cache, with the head on its last position.
double prefill_flops(const ModelConfig& config, int64_t tokens);

// part / whole, or 0 when nothing was measured.
double share_of(double part, double whole);

}  // namespace bise
