// Attention on the CPU: keys and values are brought to float32 block by block, once for all query
// rows and heads that share them, and each query runs an online softmax over its blocks in order.
#pragma once

#include <vector>

#include "backend/backend.h"
#include "backend/cpu/cpu_kernels.h"
#include "base/thread_pool.h"

namespace bise {

// Per-thread memory, kept between calls.
struct AttentionScratch {
  struct PerThread {
    std::vector<float> keys, values, queries, outputs, max, sum;
  };
  std::vector<PerThread> threads;
};

void cpu_store_kv(const CpuKernels& kernels, MatrixView qkv, int32_t num_heads,
                  std::span<const int32_t> slots, const KvLayerView& kv);
void cpu_attention(const CpuKernels& kernels, ThreadPool& pool, AttentionScratch& scratch,
                   const AttentionArgs& args);
void cpu_attention_full(const CpuKernels& kernels, ThreadPool& pool, AttentionScratch& scratch,
                        MatrixView qkv, int32_t num_heads, int32_t head_dim, float scale,
                        std::span<const int32_t> segments, MatrixView out);

}  // namespace bise
