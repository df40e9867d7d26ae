#include "model/kv_cache.h"

namespace bise {

uint64_t KvCache::bytes_per_token(const ModelConfig& config, KvDType dtype) {
  return 2 * kv_token_bytes(dtype, config.head_dim) * static_cast<uint64_t>(config.num_kv_heads) *
         static_cast<uint64_t>(config.num_layers);
}

Result<KvCache> KvCache::create(const Placement& placement, const ModelConfig& config, int32_t num_blocks,
                                KvDType dtype) {
  CHECK(num_blocks > 0);
  KvCache cache;
  cache.num_blocks_ = num_blocks;
  cache.num_kv_heads_ = config.num_kv_heads;
  cache.head_dim_ = config.head_dim;
  cache.dtype_ = dtype;
  uint64_t bytes = kv_token_bytes(dtype, config.head_dim) * static_cast<uint64_t>(num_blocks) * kKvBlockSize *
                   static_cast<uint64_t>(config.num_kv_heads);
  for (int32_t i = 0; i < config.num_layers; ++i) {
    Backend& backend = placement.of_layer(i);
    Layer layer;
    layer.k = TRY(backend.allocate(bytes, "the KV cache"));
    layer.v = TRY(backend.allocate(bytes, "the KV cache"));
    cache.layers_.push_back(std::move(layer));
  }
  return cache;
}

KvLayerView KvCache::layer(int32_t index) const {
  const Layer& layer = layers_[static_cast<size_t>(index)];
  return {layer.k.data(), layer.v.data(), dtype_, num_blocks_, kKvBlockSize, num_kv_heads_, head_dim_};
}

uint64_t KvCache::bytes() const {
  uint64_t total = 0;
  for (const Layer& layer : layers_) total += layer.k.bytes() + layer.v.bytes();
  return total;
}

}  // namespace bise
