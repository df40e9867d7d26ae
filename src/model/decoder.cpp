#include "model/decoder.h"

#include <cmath>

namespace bise {
namespace {

// Numbers from one backend's memory to another's. `from` is left to be changed.
Result<void> move(Backend& from, MatrixView x, Backend& to, MatrixView y) { return to.write(TRY(from.on_host(x)), y); }

// The rows of image tokens take projected features in place of their embeddings.
Result<void> place_images(const Placement& placement, const Batch& batch, MatrixView hidden) {
  Backend& main = *placement.main;
  for (const ImageRows& image : batch.images) {
    MatrixView rows = image.features;
    size_t row_bytes = static_cast<size_t>(rows.columns) * main.activation_bytes();
    rows.data = static_cast<std::byte*>(rows.data) +
                static_cast<size_t>(image.first_feature) * row_bytes;
    rows.rows = static_cast<int64_t>(image.rows.size());
    Backend& backend = placement.of_embedding();
    if (&backend != &main) rows.data = TRY(main.on_host(rows)).data();
    backend.scatter_rows(rows, image.rows, hidden);
    if (&backend != &main) TRY(backend.synchronize());  // before the next copy
  }
  return {};
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

Result<void> DecoderActivations::reserve(Backend& backend, const ModelConfig& c, int64_t rows, int64_t logits_rows) {
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

Result<void> decoder_forward(const ModelConfig& config, const ModelWeights& weights, std::span<const float> frequencies,
                             const Placement& placement, const Batch& batch, KvCache& cache, DecoderScratch& scratch,
                             MatrixView logits) {
  TRY(check(config, batch, cache));
  const int64_t num_rows = static_cast<int64_t>(batch.ids.size()),
                num_logits = static_cast<int64_t>(batch.logits_rows.size());
  TRY(scratch.main.reserve(*placement.main, config, num_rows, num_logits));
  if (placement.host != nullptr) TRY(scratch.host.reserve(*placement.host, config, num_rows, 0));
  const RopeTable& rope = scratch.rope;
  fill_rope(config.rope, frequencies, batch.positions, scratch.rope);
  const float* query_scale = rope.query_scale.empty() ? nullptr : rope.query_scale.data();
  const float scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim));

  const DecoderActivations* s = placement.host != nullptr ? &scratch.host : &scratch.main;
  placement.of_embedding().embed(weights.embedding, batch.ids, s->hidden);
  TRY(place_images(placement, batch, s->hidden));
  for (int32_t i = 0; i < config.num_layers; ++i) {
    const DecoderLayerWeights& w = weights.layers[static_cast<size_t>(i)];
    const KvLayerView kv = cache.layer(i);
    Backend& backend = placement.of_layer(i);
    if (i > 0 && i == placement.host_layers) {
      TRY(move(*placement.host, s->hidden, backend, scratch.main.hidden));
      s = &scratch.main;
    }

    backend.rms_norm(s->hidden, w.attention_norm, config.norm_eps, s->normed);
    backend.matmul(w.qkv, s->normed, s->qkv);
    backend.rope({s->qkv, 0, config.num_heads, config.head_dim, rope.cosine.data(), rope.sine.data(), query_scale});
    backend.rope({s->qkv, config.num_heads, config.num_kv_heads, config.head_dim, rope.cosine.data(), rope.sine.data(),
                  nullptr});
    backend.store_kv(s->qkv, config.num_heads, batch.slots, kv);
    backend.attention({s->qkv, config.num_heads, scale, config.sliding_window, kv, batch.sequences, s->attention});
    backend.matmul(w.output, s->attention, s->hidden, /*accumulate=*/true);

    backend.rms_norm(s->hidden, w.ffn_norm, config.norm_eps, s->normed);
    backend.matmul(w.gate_up, s->normed, s->gate_up);
    backend.gated_activation(s->gate_up, Activation::silu, s->gated);
    backend.matmul(w.down, s->gated, s->hidden, /*accumulate=*/true);
  }
  Backend& backend = *placement.main;
  if (num_logits > 0) {
    CHECK(logits.rows == num_logits && logits.columns == config.vocab_size);
    backend.gather_rows(s->hidden, batch.logits_rows, s->last);
    backend.rms_norm(s->last, weights.norm, config.norm_eps, s->last);
    backend.matmul(weights.output_head(), s->last, logits);
  }
  return backend.synchronize();
}

}  // namespace bise
