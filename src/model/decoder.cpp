#include "model/decoder.h"

#include <cmath>

namespace bise {
namespace {

// The rows of image tokens take projected features in place of their embeddings.
void place_images(Backend& backend, const Batch& batch, MatrixView hidden) {
  for (const ImageRows& image : batch.images) {
    MatrixView rows = image.features;
    size_t row_bytes = static_cast<size_t>(rows.columns) * backend.activation_bytes();
    rows.data = static_cast<std::byte*>(rows.data) +
                static_cast<size_t>(image.first_feature) * row_bytes;
    rows.rows = static_cast<int64_t>(image.rows.size());
    backend.scatter_rows(rows, image.rows, hidden);
  }
}

Result<void> check(const ModelConfig& config, const Batch& batch, const KvCache& cache) {
  size_t rows = batch.ids.size();
  CHECK(rows > 0 && batch.positions.size() == rows && batch.slots.size() == rows);
  CHECK(cache.num_layers() == config.num_layers);
  for (int32_t id : batch.ids) {
    if (id < 0 || id >= config.vocab_size) {
      return Error(ErrorCode::invalid_argument,
                   "token id " + std::to_string(id) + " is outside the vocabulary of " +
                       std::to_string(config.vocab_size));
    }
  }
  return {};
}

}  // namespace

Result<void> DecoderScratch::reserve(Backend& backend, const ModelConfig& c, int64_t rows,
                                     int64_t logits_rows) {
  struct Want {
    MatrixView* view;
    int64_t rows, columns;
  };
  int64_t q = int64_t{c.num_heads} * c.head_dim, kv = int64_t{c.num_kv_heads} * c.head_dim;
  const Want wants[] = {{&hidden, rows, c.hidden_size},
                        {&normed, rows, c.hidden_size},
                        {&qkv, rows, q + 2 * kv},
                        {&attention, rows, q},
                        {&gate_up, rows, 2 * int64_t{c.intermediate_size}},
                        {&gated, rows, c.intermediate_size},
                        {&last, logits_rows, c.hidden_size}};
  uint64_t total = 0;
  for (const Want& want : wants) {
    total += round_up(static_cast<uint64_t>(want.rows * want.columns) * backend.activation_bytes(), 64);
  }
  if (total > bytes_) {
    memory_ = Buffer();  // give the old one back first
    bytes_ = 0;
    memory_ = TRY(backend.allocate(total, "the activations of a step"));
    bytes_ = total;
  }
  auto* at = static_cast<std::byte*>(memory_.data());
  for (const Want& want : wants) {
    *want.view = {at, want.rows, want.columns};
    at += round_up(static_cast<uint64_t>(want.rows * want.columns) * backend.activation_bytes(), 64);
  }
  return {};
}

Result<void> decoder_forward(const ModelConfig& config, const ModelWeights& weights,
                             std::span<const float> frequencies, Backend& backend,
                             const Batch& batch, KvCache& cache, DecoderScratch& s,
                             MatrixView logits) {
  TRY(check(config, batch, cache));
  const int64_t num_logits = static_cast<int64_t>(batch.logits_rows.size());
  TRY(s.reserve(backend, config, static_cast<int64_t>(batch.ids.size()), num_logits));
  fill_rope(config.rope, frequencies, batch.positions, s.rope);
  const float* query_scale = s.rope.query_scale.empty() ? nullptr : s.rope.query_scale.data();
  const float scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim));

  backend.embed(weights.embedding, batch.ids, s.hidden);
  place_images(backend, batch, s.hidden);
  for (int32_t i = 0; i < config.num_layers; ++i) {
    const DecoderLayerWeights& w = weights.layers[static_cast<size_t>(i)];
    const KvLayerView kv = cache.layer(i);

    backend.rms_norm(s.hidden, w.attention_norm, config.norm_eps, s.normed);
    backend.matmul(w.qkv, s.normed, s.qkv);
    backend.rope({s.qkv, 0, config.num_heads, config.head_dim, s.rope.cosine.data(),
                  s.rope.sine.data(), query_scale});
    backend.rope({s.qkv, config.num_heads, config.num_kv_heads, config.head_dim,
                  s.rope.cosine.data(), s.rope.sine.data(), nullptr});
    backend.store_kv(s.qkv, config.num_heads, batch.slots, kv);
    backend.attention({s.qkv, config.num_heads, scale, config.sliding_window, kv, batch.sequences,
                       s.attention});
    backend.matmul(w.output, s.attention, s.hidden, /*accumulate=*/true);

    backend.rms_norm(s.hidden, w.ffn_norm, config.norm_eps, s.normed);
    backend.matmul(w.gate_up, s.normed, s.gate_up);
    backend.gated_activation(s.gate_up, Activation::silu, s.gated);
    backend.matmul(w.down, s.gated, s.hidden, /*accumulate=*/true);
  }
  if (num_logits > 0) {
    CHECK(logits.rows == num_logits && logits.columns == config.vocab_size);
    backend.gather_rows(s.hidden, batch.logits_rows, s.last);
    backend.rms_norm(s.last, weights.norm, config.norm_eps, s.last);
    backend.matmul(weights.output_head(), s.last, logits);
  }
  return backend.synchronize();
}

}  // namespace bise
