// The text decoder's forward pass, readable top to bottom: model.md section 3 of the Mistral 3 family
// (transformers: modeling_ministral3.py).
#pragma once

#include <span>

#include "model/batch.h"
#include "model/kv_cache.h"
#include "model/placement.h"
#include "model/rope.h"
#include "model/weights.h"

namespace bise {

// Activations of one step on one backend; grows to the largest step seen. One thread uses it.
class DecoderActivations {
 public:
  // Zero-copy views [rows, columns] into buffers that are at least that large.
  Result<void> reserve(Backend& backend, const ModelConfig& config, int64_t rows,
                       int64_t logits_rows);
  MatrixView hidden, normed, qkv, attention, gate_up, gated, last;

 private:
  Buffer memory_;
  uint64_t bytes_ = 0;
};

struct DecoderScratch {
  DecoderActivations main, host;
  RopeTable rope;
};

Result<void> decoder_forward(const ModelConfig& config, const ModelWeights& weights, std::span<const float> frequencies,
                             const Placement& placement, const Batch& batch, KvCache& cache, DecoderScratch& scratch,
                             MatrixView logits);

}  // namespace bise
