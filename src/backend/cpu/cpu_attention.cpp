#include "backend/cpu/cpu_attention.h"

#include <algorithm>
#include <cstring>

namespace bise {
namespace {

constexpr int32_t kKeyBlock = 32;   // keys per step of the online softmax: one block of the cache
constexpr int32_t kQueryRows = 16;  // query rows that share one conversion of a key block

KernelKv kernel_kv(KvDType type) {
  switch (type) {
    case KvDType::bf16: return KernelKv::bf16;
    case KvDType::f16: return KernelKv::f16;
    case KvDType::f32: break;
  }
  return KernelKv::f32;
}
int64_t element_bytes(KvDType type) { return type == KvDType::f32 ? 4 : 2; }

// A group of queries against one run of keys: rows x heads that read the same KV head.
struct QueryGroup {
  const CpuKernels& kernels;
  AttentionScratch::PerThread& s;
  int32_t head_dim, padded, num_queries;

  QueryGroup(const CpuKernels& k, AttentionScratch::PerThread& scratch, int32_t dim, int32_t queries)
      : kernels(k), s(scratch), head_dim(dim), padded((dim + 15) / 16 * 16), num_queries(queries) {
    const size_t wide = static_cast<size_t>(padded);
    s.keys.assign(kKeyBlock * wide, 0.0f);
    s.values.assign(kKeyBlock * wide, 0.0f);
    s.queries.assign(static_cast<size_t>(queries) * wide, 0.0f);
    s.outputs.assign(static_cast<size_t>(queries) * wide, 0.0f);
    s.max.assign(static_cast<size_t>(queries), -3.0e38f);
    s.sum.assign(static_cast<size_t>(queries), 0.0f);
  }
  float* key(int32_t t) const { return &s.keys[static_cast<size_t>(t) * static_cast<size_t>(padded)]; }
  float* value(int32_t t) const { return &s.values[static_cast<size_t>(t) * static_cast<size_t>(padded)]; }
  float* query(int32_t i) const { return &s.queries[static_cast<size_t>(i) * static_cast<size_t>(padded)]; }
  float* output(int32_t i) const { return &s.outputs[static_cast<size_t>(i) * static_cast<size_t>(padded)]; }

  void set_query(int32_t i, const float* q, float scale) const {
    for (int32_t d = 0; d < head_dim; ++d) query(i)[d] = q[d] * scale;
  }
  // Query i sees the tokens [first, end) of the block now in keys and values.
  void attend(int32_t i, int32_t first, int32_t end) const {
    if (first >= end) return;
    kernels.attend_block({query(i), key(first), value(first), end - first, padded, output(i),
                          &s.max[static_cast<size_t>(i)], &s.sum[static_cast<size_t>(i)]});
  }
  void write(int32_t i, float* out) const {
    const float factor = 1.0f / s.sum[static_cast<size_t>(i)];
    for (int32_t d = 0; d < head_dim; ++d) out[d] = output(i)[d] * factor;
  }
};

int64_t kv_index(const KvLayerView& kv, int64_t block, int64_t head, int64_t offset) {
  return ((block * kv.num_kv_heads + head) * kv.block_size + offset) * kv.head_dim;
}

void load_keys(const CpuKernels& kernels, const KvLayerView& kv, int64_t block, int32_t head,
               int32_t count, const QueryGroup& group) {
  const int64_t width = element_bytes(kv.dtype);
  const KernelKv type = kernel_kv(kv.dtype);
  for (int32_t t = 0; t < count; ++t) {
    const int64_t at = kv_index(kv, block, head, t) * width;
    kernels.kv_to_f32(type, static_cast<const std::byte*>(kv.k) + at, kv.head_dim, group.key(t));
    kernels.kv_to_f32(type, static_cast<const std::byte*>(kv.v) + at, kv.head_dim, group.value(t));
  }
}

// Rows [row, row + rows) of a sequence and all query heads of one KV head.
void attend_rows(const CpuKernels& kernels, AttentionScratch::PerThread& scratch,
                 const AttentionArgs& a, const SequenceSpan& sequence, int32_t row, int32_t rows,
                 int32_t kv_head) {
  const KvLayerView& kv = a.kv;
  const int32_t heads = a.num_heads / kv.num_kv_heads;
  QueryGroup group(kernels, scratch, kv.head_dim, rows * heads);
  auto at = [&](MatrixView m, int32_t r, int32_t h) {
    return m.row_f32(sequence.first_row + row + r) + int64_t{kv_head * heads + h} * kv.head_dim;
  };
  for (int32_t i = 0; i < rows * heads; ++i) group.set_query(i, at(a.qkv, i / heads, i % heads), a.scale);
  const int32_t first_end = sequence.num_tokens - sequence.num_rows + row + 1;  // of the first row
  const int32_t last_end = first_end + rows - 1;
  const int32_t begin = a.sliding_window > 0 ? std::max(0, first_end - a.sliding_window) : 0;
  // Blocks start at multiples of kKeyBlock of the sequence, whatever the window or the chunk.
  for (int32_t t = begin / kKeyBlock * kKeyBlock; t < last_end; t += kKeyBlock) {
    const int32_t count = std::min(kKeyBlock, last_end - t);
    load_keys(kernels, kv, sequence.block_table[t / kKeyBlock], kv_head, count, group);
    for (int32_t i = 0; i < rows * heads; ++i) {
      const int32_t end = first_end + i / heads;
      const int32_t low = a.sliding_window > 0 ? std::max(0, end - a.sliding_window) : 0;
      group.attend(i, std::max(low - t, 0), std::min(end - t, count));
    }
  }
  for (int32_t i = 0; i < rows * heads; ++i) group.write(i, at(a.out, i / heads, i % heads));
}

void reserve(AttentionScratch& scratch, const ThreadPool& pool) {
  scratch.threads.resize(static_cast<size_t>(pool.num_threads()));
}

}  // namespace

void cpu_store_kv(const CpuKernels& kernels, MatrixView qkv, int32_t num_heads,
                  std::span<const int32_t> slots, const KvLayerView& kv) {
  const int64_t width = element_bytes(kv.dtype);
  const KernelKv type = kernel_kv(kv.dtype);
  for (size_t t = 0; t < slots.size(); ++t) {
    CHECK(slots[t] >= 0 && slots[t] < kv.num_blocks * kv.block_size);
    const float* k = qkv.row_f32(static_cast<int64_t>(t)) + int64_t{num_heads} * kv.head_dim;
    const float* v = k + int64_t{kv.num_kv_heads} * kv.head_dim;
    for (int32_t h = 0; h < kv.num_kv_heads; ++h) {
      const int64_t at = kv_index(kv, slots[t] / kv.block_size, h, slots[t] % kv.block_size) * width;
      kernels.f32_to_kv(type, k + int64_t{h} * kv.head_dim, kv.head_dim, static_cast<std::byte*>(kv.k) + at);
      kernels.f32_to_kv(type, v + int64_t{h} * kv.head_dim, kv.head_dim, static_cast<std::byte*>(kv.v) + at);
    }
  }
}

void cpu_attention(const CpuKernels& kernels, ThreadPool& pool, AttentionScratch& scratch,
                   const AttentionArgs& args) {
  CHECK(args.kv.block_size == kKeyBlock);
  reserve(scratch, pool);
  struct Item {
    const SequenceSpan* sequence;
    int32_t row, rows, kv_head;
  };
  std::vector<Item> items;
  for (const SequenceSpan& s : args.sequences) {
    for (int32_t row = 0; row < s.num_rows; row += kQueryRows) {
      for (int32_t h = 0; h < args.kv.num_kv_heads; ++h) {
        items.push_back({&s, row, std::min(kQueryRows, s.num_rows - row), h});
      }
    }
  }
  // Late rows have the most keys: they go first, so that no thread is left alone with them.
  pool.parallel_for(static_cast<int64_t>(items.size()), 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t i = begin; i < end; ++i) {
      const Item& item = items[items.size() - 1 - static_cast<size_t>(i)];
      attend_rows(kernels, scratch.threads[static_cast<size_t>(worker)], args, *item.sequence, item.row,
                  item.rows, item.kv_head);
    }
  });
}

void cpu_attention_full(const CpuKernels& kernels, ThreadPool& pool, AttentionScratch& scratch,
                        MatrixView qkv, int32_t num_heads, int32_t head_dim, float scale,
                        std::span<const int32_t> segments, MatrixView out) {
  reserve(scratch, pool);
  struct Item {
    int32_t first, size, row, head;
  };
  std::vector<Item> items;
  int32_t first = 0;
  for (int32_t size : segments) {
    for (int32_t row = 0; row < size; row += kQueryRows) {
      for (int32_t h = 0; h < num_heads; ++h) items.push_back({first, size, row, h});
    }
    first += size;
  }
  const int64_t width = int64_t{num_heads} * head_dim;
  const size_t bytes = static_cast<size_t>(head_dim) * sizeof(float);
  pool.parallel_for(static_cast<int64_t>(items.size()), 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t n = begin; n < end; ++n) {
      const Item& item = items[static_cast<size_t>(n)];
      const int32_t rows = std::min(kQueryRows, item.size - item.row);
      const int64_t column = int64_t{item.head} * head_dim;
      QueryGroup group(kernels, scratch.threads[static_cast<size_t>(worker)], head_dim, rows);
      for (int32_t i = 0; i < rows; ++i) {
        group.set_query(i, qkv.row_f32(item.first + item.row + i) + column, scale);
      }
      for (int32_t t = 0; t < item.size; t += kKeyBlock) {
        const int32_t count = std::min(kKeyBlock, item.size - t);
        for (int32_t j = 0; j < count; ++j) {
          const float* row = qkv.row_f32(item.first + t + j) + column;
          std::memcpy(group.key(j), row + width, bytes);
          std::memcpy(group.value(j), row + 2 * width, bytes);
        }
        for (int32_t i = 0; i < rows; ++i) group.attend(i, 0, count);
      }
      for (int32_t i = 0; i < rows; ++i) group.write(i, out.row_f32(item.first + item.row + i) + column);
    }
  });
}

}  // namespace bise
