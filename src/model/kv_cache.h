// KvCache: the device blocks of K and V of all layers. Which block belongs to whom is the engine's
// book-keeping; only block numbers pass between them.
#pragma once

#include <vector>

#include "backend/backend.h"
#include "model/model_config.h"
#include "model/placement.h"

namespace bise {

constexpr int32_t kKvBlockSize = 32;  // tokens per block

class KvCache {
 public:
  // Each layer's in the memory of the backend that computes it.
  static Result<KvCache> create(const Placement& placement, const ModelConfig& config, int32_t num_blocks,
                                KvDType dtype);
  KvLayerView layer(int32_t index) const;
  int32_t num_blocks() const { return num_blocks_; }
  int32_t num_layers() const { return static_cast<int32_t>(layers_.size()); }
  KvDType dtype() const { return dtype_; }
  uint64_t bytes() const;
  // Bytes of K and V of one token over all layers.
  static uint64_t bytes_per_token(const ModelConfig& config, KvDType dtype);

 private:
  struct Layer {
    Buffer k, v;
  };
  std::vector<Layer> layers_;
  int32_t num_blocks_ = 0, num_kv_heads_ = 0, head_dim_ = 0;
  KvDType dtype_ = KvDType::bf16;
};

}  // namespace bise
