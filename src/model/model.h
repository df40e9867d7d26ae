// Model: config, weights and the two forward passes. Immutable once loaded.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "backend/backend.h"
#include "base/log.h"
#include "io/checkpoint.h"
#include "model/batch.h"
#include "model/image.h"
#include "model/kv_cache.h"
#include "model/model_config.h"
#include "model/weights.h"

namespace bise {

struct ModelLoadOptions {
  ConfigOptions config;
  // Memory, and what is called while weights are loaded. `progress` returning false stops loading with
  // a `cancelled` Error.
  WeightLoadOptions weights;
};

// Projected features of one picture: [rows * columns, hidden] in backend memory.
struct ImageFeatures {
  Buffer buffer;
  MatrixView view;
};

class Model {
 public:
  // The checkpoint must outlive the model: weights may be slices of its file maps.
  static Result<Model> load(const Checkpoint& checkpoint, Backend& backend,
                            const ModelLoadOptions& options, const Log& log);
  Model(Model&&) noexcept;
  Model& operator=(Model&&) noexcept;
  ~Model();

  const ModelConfig& config() const;
  Backend& backend() const;  // of the head: logits and pictures' features are in its memory
  const Placement& placement() const;
  // One step. logits: [batch.logits_rows.size(), vocab_size].
  Result<void> forward(const Batch& batch, KvCache& cache, MatrixView logits) const;
  // Tower and projector. Error when the model has no vision part.
  Result<ImageFeatures> encode_image(const ProcessedImage& image) const;
  // Bytes of weights that one decode step reads (the embedding table counts only when it is the head).
  uint64_t step_bytes() const;
  uint64_t weight_bytes() const;
  // Where the weights live.
  const MemoryPlan& memory_plan() const;
  // Parameters in all; FLOPs of linear layers per token (2 per weight used).
  uint64_t num_parameters() const;

 private:
  struct State;
  explicit Model(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace bise
