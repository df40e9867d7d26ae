#include "model/rope.h"

#include <algorithm>
#include <cmath>

namespace bise {
namespace {

// base^(exponent) rounded once to float: torch's powf within its last bit.
float power(double base, float exponent) {
  return static_cast<float>(std::pow(base, static_cast<double>(exponent)));
}

void put_angle(float angle, float factor, float* cosine, float* sine) {
  *cosine = static_cast<float>(std::cos(static_cast<double>(angle))) * factor;
  *sine = static_cast<float>(std::sin(static_cast<double>(angle))) * factor;
}

}  // namespace

std::vector<float> rope_frequencies(const RopeConfig& c, int32_t head_dim) {
  const int32_t pairs = head_dim / 2;
  std::vector<float> out(static_cast<size_t>(pairs));
  double low = 0.0, high = 0.0;
  if (c.yarn) {
    auto correction = [&](double rotations) {
      return head_dim *
             std::log(static_cast<double>(c.original_context) / (rotations * 2.0 * M_PI)) /
             (2.0 * std::log(c.theta));
    };
    low = correction(c.beta_fast);
    high = correction(c.beta_slow);
    if (c.truncate) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, static_cast<double>(head_dim - 1));
    if (low == high) high += 0.001;  // the reference's guard against a division by zero
  }
  for (int32_t i = 0; i < pairs; ++i) {
    float position = power(c.theta, static_cast<float>(2 * i) / static_cast<float>(head_dim));
    float extrapolated = 1.0f / position;
    if (c.yarn) {
      float interpolated = 1.0f / (static_cast<float>(c.factor) * position);
      float ramp = (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low);
      float keep = 1.0f - std::clamp(ramp, 0.0f, 1.0f);
      out[static_cast<size_t>(i)] = interpolated * (1.0f - keep) + extrapolated * keep;
    } else {
      out[static_cast<size_t>(i)] = extrapolated;
    }
  }
  return out;
}

void fill_rope(const RopeConfig& config, std::span<const float> frequencies,
               std::span<const int32_t> positions, RopeTable& table) {
  const size_t pairs = frequencies.size();
  table.cosine.resize(positions.size() * pairs);
  table.sine.resize(positions.size() * pairs);
  const float factor = static_cast<float>(config.attention_factor);
  for (size_t t = 0; t < positions.size(); ++t) {
    for (size_t i = 0; i < pairs; ++i) {
      float angle = frequencies[i] * static_cast<float>(positions[t]);
      put_angle(angle, factor, &table.cosine[t * pairs + i], &table.sine[t * pairs + i]);
    }
  }
  table.query_scale.clear();
  if (config.query_scaling_beta == 0.0) return;
  for (int32_t position : positions) {
    float turns = std::floor(static_cast<float>(position) / static_cast<float>(config.original_context));
    table.query_scale.push_back(
        1.0f + static_cast<float>(config.query_scaling_beta) * std::log1p(turns));
  }
}

RopeTable vision_rope(double theta, int32_t head_dim, int32_t grid_rows, int32_t grid_columns) {
  const size_t pairs = static_cast<size_t>(head_dim / 2);
  std::vector<float> frequencies(pairs);
  for (size_t k = 0; k < pairs; ++k) {
    frequencies[k] = 1.0f / power(theta, static_cast<float>(2 * k) / static_cast<float>(head_dim));
  }
  RopeTable table;
  const size_t patches = static_cast<size_t>(grid_rows) * static_cast<size_t>(grid_columns);
  table.cosine.resize(patches * pairs);
  table.sine.resize(patches * pairs);
  for (size_t p = 0; p < patches; ++p) {
    float row = static_cast<float>(p / static_cast<size_t>(grid_columns));
    float column = static_cast<float>(p % static_cast<size_t>(grid_columns));
    for (size_t i = 0; i < pairs; ++i) {
      bool by_row = i < pairs / 2;
      size_t k = by_row ? 2 * i : 2 * (i - pairs / 2) + 1;
      float angle = (by_row ? row : column) * frequencies[k];
      put_angle(angle, 1.0f, &table.cosine[p * pairs + i], &table.sine[p * pairs + i]);
    }
  }
  return table;
}

}  // namespace bise
