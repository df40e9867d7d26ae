// Rotary embedding: inverse frequencies with YaRN for the decoder, and the 2-D form of the vision
// tower. Angles are float32 products of float32 frequencies and positions, as the reference has
// them; cosine and sine are taken of that float.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/model_config.h"

namespace bise {

// [head_dim / 2] float32, bit for bit those of transformers under a correctly rounded powf.
std::vector<float> rope_frequencies(const RopeConfig& config, int32_t head_dim);

// Cosine and sine [rows, pairs] of one step, and the factor of each query row.
struct RopeTable {
  std::vector<float> cosine, sine;
  std::vector<float> query_scale;  // empty when the model has no query scaling
};

// Fills the table for absolute positions. The attention factor A is inside cosine and sine.
// query_scale(p) = 1 + beta ln(1 + floor(p / L)).
void fill_rope(const RopeConfig& config, std::span<const float> frequencies,
               std::span<const int32_t> positions, RopeTable& table);

// The tower's: pair i < n/2 turns with the patch's row, the others with its column;
// frequencies theta^(-2k / head_dim), even k for rows, odd k for columns.
RopeTable vision_rope(double theta, int32_t head_dim, int32_t grid_rows, int32_t grid_columns);

}  // namespace bise
