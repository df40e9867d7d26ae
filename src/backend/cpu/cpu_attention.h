// Attention on the CPU. The queries of all heads that share a KV head, and of several rows, meet each block
// of keys and values together; each runs an online softmax over the blocks in order. A long cache is cut
// into segments of fixed places, each with a softmax of its own, joined in order: so threads can share one
// sequence, and neither they nor the company in a batch change a bit.
#pragma once

#include <new>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/cpu_kernels.h"
#include "base/thread_pool.h"

namespace bise {

// A vector that begins with a cache line, so that no access to a row of 64 bytes touches two.
template <class T>
struct LineAllocator {
  using value_type = T;
  LineAllocator() = default;
  template <class U>
  LineAllocator(const LineAllocator<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(::operator new (n * sizeof(T), std::align_val_t{64})); }
  void deallocate(T* p, size_t) { ::operator delete (p, std::align_val_t{64}); }
  bool operator==(const LineAllocator&) const = default;
};
template <class T>
using LineVector = std::vector<T, LineAllocator<T>>;

// Memory kept between calls.
struct AttentionScratch {
  struct PerThread {
    LineVector<float> q, q_scales, out, max, sums, scores, corrections, p_scales, tile;
    LineVector<int16_t> q_codes, p_codes, wide;
    LineVector<int32_t> q_sums;
    std::vector<int64_t> places;         // of the blocks of a segment
    std::vector<float> partial, total;  // of queries: see cpu_attention.cpp
  };
  std::vector<PerThread> threads;
  std::vector<float> partials;         // of segments that threads share
  std::vector<uint8_t> keys, values;   // of one head, for attention_full
  std::vector<int32_t> block_table;
};

void cpu_store_kv(ThreadPool& pool, MatrixView qkv, int32_t num_heads, std::span<const int32_t> slots,
                  const KvLayerView& kv);
void cpu_attention(const CpuKernels& kernels, ThreadPool& pool, AttentionScratch& scratch,
                   const AttentionArgs& args);
void cpu_attention_full(const CpuKernels& kernels, ThreadPool& pool, AttentionScratch& scratch,
                        MatrixView qkv, int32_t num_heads, int32_t head_dim, float scale,
                        std::span<const int32_t> segments, MatrixView out);

}  // namespace bise
