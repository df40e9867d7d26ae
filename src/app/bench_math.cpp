#include "app/bench_math.h"

#include <algorithm>

namespace bise {

Spread spread_of(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return {values.front(), n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2, values.back()};
}

Spread ratios_of(const std::vector<double>& parts, const std::vector<double>& wholes) {
  std::vector<double> ratios;
  for (size_t i = 0; i < parts.size(); ++i) ratios.push_back(share_of(parts[i], wholes[i]));
  return spread_of(std::move(ratios));
}

void LimitedRates::add(double rate, double limit_before, double limit_after) {
  rates_.push_back(rate);
  limits_.push_back((limit_before + limit_after) / 2);
}

double linear_flops_per_token(const ModelConfig& c) {
  const double hidden = c.hidden_size, head_dim = c.head_dim;
  const double qkv = hidden * head_dim * (c.num_heads + 2.0 * c.num_kv_heads);
  const double out = hidden * head_dim * c.num_heads;
  const double mlp = 3.0 * hidden * c.intermediate_size;
  return 2.0 * c.num_layers * (qkv + out + mlp);
}

double head_flops(const ModelConfig& c) { return 2.0 * c.vocab_size * c.hidden_size; }

double attention_flops(const ModelConfig& c, int64_t first, int64_t count) {
  // Keys seen by all queries: a query at position p sees p + 1, at most the window.
  auto seen_up_to = [&](double n) {  // by the positions [0, n)
    const double window = c.sliding_window;
    if (window == 0 || n <= window) return n * (n + 1) / 2;
    return window * (window + 1) / 2 + (n - window) * window;
  };
  const double keys = seen_up_to(static_cast<double>(first + count)) - seen_up_to(static_cast<double>(first));
  return 4.0 * c.num_layers * c.num_heads * c.head_dim * keys;
}

double prefill_flops(const ModelConfig& c, int64_t tokens) {
  return static_cast<double>(tokens) * linear_flops_per_token(c) + attention_flops(c, 0, tokens) + head_flops(c);
}

double share_of(double part, double whole) { return whole > 0 ? part / whole : 0.0; }

}  // namespace bise
