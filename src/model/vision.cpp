#include "model/vision.h"

#include <algorithm>
#include <cmath>

#include "model/rope.h"

namespace bise {
namespace {

struct Matrix {
  Buffer buffer;
  MatrixView view;
};
Result<Matrix> allocate(Backend& backend, int64_t rows, int64_t columns) {
  Matrix m;
  m.buffer = TRY(backend.allocate(
      static_cast<uint64_t>(rows) * static_cast<uint64_t>(columns) * backend.activation_bytes(),
      "the activations of a picture"));
  m.view = {m.buffer.data(), rows, columns};
  return m;
}

MatrixView rows_of(const Backend& backend, MatrixView m, int64_t first, int64_t count) {
  m.data = static_cast<std::byte*>(m.data) +
           static_cast<size_t>(first * m.columns) * backend.activation_bytes();
  m.rows = count;
  return m;
}

// Non-overlapping patches, row-major; columns channel, then row, then column, as a convolution of
// kernel = stride sees them.
std::vector<float> cut_patches(const ProcessedImage& image, int32_t patch) {
  const size_t p = static_cast<size_t>(patch);
  const size_t width = static_cast<size_t>(image.width), height = static_cast<size_t>(image.height);
  std::vector<float> out;
  out.reserve(image.pixels.size());
  for (size_t y = 0; y < height; y += p) {
    for (size_t x = 0; x < width; x += p) {
      for (size_t c = 0; c < 3; ++c) {
        for (size_t i = 0; i < p; ++i) {
          const float* row = &image.pixels[(c * height + y + i) * width + x];
          out.insert(out.end(), row, row + p);
        }
      }
    }
  }
  return out;
}

// The feed-forward layers are wide (8192 for 1664): done some rows at a time, so that 12,100 patches
// do not need 800 MB.
constexpr int64_t kRowsAtOnce = 1024;

}  // namespace

Result<ImageFeatures> vision_forward(const ModelConfig& config, const VisionWeights& weights,
                                     Backend& backend, const ProcessedImage& image) {
  const VisionConfig& v = *config.vision;
  const int32_t grid_rows = image.height / v.patch_size, grid_columns = image.width / v.patch_size;
  const int64_t n = int64_t{grid_rows} * grid_columns;
  CHECK(grid_rows % v.spatial_merge_size == 0 && grid_columns % v.spatial_merge_size == 0);
  const int64_t merge = int64_t{v.spatial_merge_size} * v.spatial_merge_size;
  const int64_t tile = std::min(n, kRowsAtOnce);

  // All before the first op: one that fails must not leave ops that wait behind.
  Matrix patches = TRY(allocate(backend, n, int64_t{3} * v.patch_size * v.patch_size));
  Matrix hidden = TRY(allocate(backend, n, v.hidden_size));
  Matrix normed = TRY(allocate(backend, n, v.hidden_size));
  Matrix qkv = TRY(allocate(backend, n, 3 * int64_t{v.hidden_size}));
  Matrix attended = TRY(allocate(backend, n, v.hidden_size));
  Matrix gate_up = TRY(allocate(backend, tile, 2 * int64_t{v.intermediate_size}));
  Matrix gated = TRY(allocate(backend, tile, v.intermediate_size));
  Matrix unfolded = TRY(allocate(backend, n / merge, v.hidden_size * merge));
  Matrix merged = TRY(allocate(backend, n / merge, v.hidden_size));
  Matrix projected = TRY(allocate(backend, n / merge, config.hidden_size));
  Matrix out = TRY(allocate(backend, n / merge, config.hidden_size));

  const RopeTable rope = vision_rope(v.rope_theta, v.head_dim, grid_rows, grid_columns);
  const float scale = 1.0f / std::sqrt(static_cast<float>(v.head_dim));
  const int32_t segment[] = {static_cast<int32_t>(n)};

  TRY(backend.write(cut_patches(image, v.patch_size), patches.view));
  backend.matmul(weights.patch_conv, patches.view, hidden.view);
  backend.rms_norm(hidden.view, weights.ln_pre, v.norm_eps, hidden.view);
  for (const DecoderLayerWeights& w : weights.layers) {
    backend.rms_norm(hidden.view, w.attention_norm, v.norm_eps, normed.view);
    backend.matmul(w.qkv, normed.view, qkv.view);
    backend.rope({qkv.view, 0, 2 * v.num_heads, v.head_dim, rope.cosine.data(), rope.sine.data(),
                  nullptr});
    backend.attention_full(qkv.view, v.num_heads, v.head_dim, scale, segment, attended.view);
    backend.matmul(w.output, attended.view, hidden.view, /*accumulate=*/true);

    backend.rms_norm(hidden.view, w.ffn_norm, v.norm_eps, normed.view);
    for (int64_t first = 0; first < n; first += tile) {
      const int64_t count = std::min(tile, n - first);
      MatrixView wide = rows_of(backend, gate_up.view, 0, count);
      MatrixView narrow = rows_of(backend, gated.view, 0, count);
      backend.matmul(w.gate_up, rows_of(backend, normed.view, first, count), wide);
      backend.gated_activation(wide, v.act, narrow);
      backend.matmul(w.down, narrow, rows_of(backend, hidden.view, first, count),
                     /*accumulate=*/true);
    }
  }

  // Projector: norm, merge neighbours, two linears. No norm ends the tower.
  backend.rms_norm(hidden.view, weights.projector_norm, v.projector_norm_eps, normed.view);
  backend.unfold_patches(normed.view, grid_rows, grid_columns, v.spatial_merge_size, unfolded.view);
  backend.matmul(weights.merging, unfolded.view, merged.view);
  backend.matmul(weights.linear_1, merged.view, projected.view);
  if (weights.bias_1) backend.add_bias(projected.view, *weights.bias_1);
  backend.activation(projected.view, v.projector_act);
  backend.matmul(weights.linear_2, projected.view, out.view);
  if (weights.bias_2) backend.add_bias(out.view, *weights.bias_2);
  TRY(backend.synchronize());
  return ImageFeatures{std::move(out.buffer), out.view};
}

}  // namespace bise
