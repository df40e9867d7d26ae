// Loads and packs every weight by role; checks every shape against the configuration.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "backend/backend.h"
#include "base/log.h"
#include "io/checkpoint.h"
#include "model/memory_plan.h"
#include "model/model_config.h"
#include "model/placement.h"

namespace bise {

struct DecoderLayerWeights {
  Buffer attention_norm, ffn_norm;
  Weight qkv;      // [(heads + 2 kv_heads) * head_dim, hidden]
  Weight output;   // [hidden, heads * head_dim]
  Weight gate_up;  // [2 * intermediate, hidden]
  Weight down;     // [hidden, intermediate]
};

struct VisionWeights {
  Weight patch_conv;  // [hidden, 3 * patch * patch], columns channel-major
  Buffer ln_pre;
  std::vector<DecoderLayerWeights> layers;  // the same shape of block; kv_heads == heads
  Buffer projector_norm;
  Weight merging;  // [hidden, hidden * merge^2]
  Weight linear_1, linear_2;
  std::optional<Buffer> bias_1, bias_2;
};

struct ModelWeights {
  Weight embedding;              // [vocabulary, hidden]
  std::optional<Weight> head;    // none: tied to the embedding
  std::vector<DecoderLayerWeights> layers;
  Buffer norm;
  std::optional<VisionWeights> vision;
  uint64_t num_parameters = 0;
  uint64_t bytes = 0;       // of all weights
  uint64_t step_bytes = 0;  // of those that one decode step reads whole

  const Weight& output_head() const { return head ? *head : embedding; }
};

struct WeightLoadOptions {
  MemoryRequest memory;
  // Told before anything is loaded; may be empty. `first`: bytes of a streamed weight, if any is.
  std::function<void(const MemoryPlan& plan, Bytes first)> on_plan;
  // Bytes done and bytes in all; false stops. May be empty.
  std::function<bool(uint64_t, uint64_t)> progress;
  uint64_t ring_bytes = 0;  // tests: in place of the plan's
  ReadFunction read;        // tests: in place of the system's
};

// plan: where the weights went.
Result<ModelWeights> load_weights(const Checkpoint& checkpoint, const ModelConfig& config,
                                  Backend& backend, const WeightLoadOptions& options, const Log& log,
                                  MemoryPlan* plan);

}  // namespace bise
