#include "backend/cpu/cpu_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "backend/cpu/kv_codes.h"
#include "base/float_types.h"

namespace bise {
namespace {

constexpr int32_t kSegment = 1024;    // tokens of a softmax of its own, from a multiple of it on
constexpr int32_t kMaxQueries = 192;  // that share one widening of a block; their sums fit the second cache
constexpr float kNothing = -3.0e38f;  // the largest score of no keys
static_assert(kSegment % kKvTokens == 0);

KernelKv kernel_kv(KvDType type) { return static_cast<KernelKv>(type); }

// The cache as attention reads it.
struct Cache {
  const uint8_t* k;
  const uint8_t* v;
  KernelKv type;
  int32_t head_dim;
  KvPlaces places;
  const int32_t* block_table;
};

// Consecutive rows of one sequence and the query heads of one KV head. Query i is row i / heads and head
// first_head + i % heads. Row r sees the keys [max(0, end - window), end), end = first_end + r * step.
struct Queries {
  MatrixView from, to;  // q is in `from` at column head * head_dim, the result goes to `to` likewise
  int64_t first_row = 0;
  int32_t rows = 0, heads = 0, first_head = 0, kv_head = 0;
  int32_t first_end = 0, step = 1, window = 0;
  float scale = 0.0f;

  int32_t count() const { return rows * heads; }
  int32_t end(int32_t row) const { return first_end + row * step; }
  int32_t begin(int32_t row) const { return window > 0 ? std::max(0, end(row) - window) : 0; }
  int32_t first_segment() const { return begin(0) / kSegment; }
  int32_t last_segment() const { return (end(rows - 1) - 1) / kSegment; }
  float* at(MatrixView m, int32_t query, int32_t head_dim) const {
    return m.row_f32(first_row + query / heads) + int64_t{first_head + query % heads} * head_dim;
  }
};

// What is known of one query after some keys: [padded] sums of 2^(s - max) v, then max, then the sum of
// 2^(s - max); a sum of 0 says that there were no keys.
int64_t partial_floats(int32_t head_dim) { return kv_padded(head_dim) + 2; }

void merge_partials(const float* from, float* to, int64_t count, int32_t head_dim) {
  const int32_t padded = kv_padded(head_dim);
  for (int64_t i = 0; i < count; ++i, from += padded + 2, to += padded + 2) {
    if (from[padded + 1] == 0.0f) continue;
    if (to[padded + 1] == 0.0f) {
      std::memcpy(to, from, static_cast<size_t>(padded + 2) * sizeof(float));
      continue;
    }
    const float top = std::max(to[padded], from[padded]);
    const float old_factor = std::exp2(to[padded] - top), new_factor = std::exp2(from[padded] - top);
    for (int32_t d = 0; d < padded; ++d) to[d] = to[d] * old_factor + from[d] * new_factor;
    to[padded] = top;
    to[padded + 1] = to[padded + 1] * old_factor + from[padded + 1] * new_factor;
  }
}

class BlockAttention {
 public:
  BlockAttention(const CpuKernels& kernels, AttentionScratch::PerThread& scratch, const Cache& cache)
      : kernels_(kernels), s_(scratch), cache_(cache), padded_(kv_padded(cache.head_dim)) {}

  // Partials of `queries` over each of the segments [first, end), one segment after the other: take_segment(segment) is called
  // when take(query, …) gives those of one.
  template <class TakeSegment>
  void run(const Queries& queries, int32_t first, int32_t end, TakeSegment take_segment) {
    prepare(queries);
    for (int32_t segment = first; segment < end; ++segment) {
      run_segment(queries, segment, segment + 1 < end);
      take_segment(segment);
    }
  }
  void take_all(const Queries& queries, float* partials) const {
    for (int32_t i = 0; i < queries.count(); ++i) take(i, partials + i * partial_floats(cache_.head_dim));
  }
  void run_all(const Queries& queries) {
    const size_t floats = static_cast<size_t>(queries.count() * partial_floats(cache_.head_dim));
    s_.total.assign(floats, 0.0f);
    s_.partial.resize(floats);
    run(queries, queries.first_segment(), queries.last_segment() + 1, [&](int32_t) {
      take_all(queries, s_.partial.data());
      merge_partials(s_.partial.data(), s_.total.data(), queries.count(), cache_.head_dim);
    });
    write(queries, s_.total.data());
  }
  void write(const Queries& queries, const float* total) const {
    const size_t n = static_cast<size_t>(cache_.head_dim);
    for (int32_t i = 0; i < queries.count(); ++i, total += partial_floats(cache_.head_dim)) {
      float* out = queries.at(queries.to, i, cache_.head_dim);
      const float factor = 1.0f / total[padded_ + 1];
      for (size_t d = 0; d < n; ++d) out[d] = total[d] * factor;
      if (cache_.type == KernelKv::int4) rotate_head({out, n});
    }
  }

 private:
  bool in_bf16() const { return kernels_.narrow_attention && kv_is_bf16(cache_.type); }
  bool in_bytes() const { return kernels_.narrow_attention && cache_.type == KernelKv::int8; }
  size_t at(int32_t query, int32_t width) const { return static_cast<size_t>(query) * static_cast<size_t>(width); }

  void prepare(const Queries& queries) {
    const size_t n = static_cast<size_t>(queries.count()), wide = static_cast<size_t>(padded_);
    const size_t n16 = (n + kKvLanes - 1) / kKvLanes * kKvLanes, tile = std::max(wide, size_t{kKvTokens}) * kKvLanes;
    s_.q.assign(n * wide, 0.0f);
    s_.out.resize(n * wide);
    s_.max.resize(n + kKvLanes - 1);
    s_.sums.resize(n * kKvLanes);
    s_.scores.resize(n16 * kKvTokens);
    s_.corrections.assign(n16, 0.0f);
    s_.tile.resize(tile);
    s_.wide.resize(2 * tile);
    const bool integer = kv_is_integer(cache_.type);
    if (integer || in_bf16()) {
      s_.q_codes.assign((n + kKvLanes - 1) * wide, 0);
      s_.p_codes.resize(n16 * kKvTokens);
    }
    if (integer) {
      s_.q_scales.resize(n);
      s_.p_scales.resize(n16);
      s_.q_sums.assign(n, 0);
    }
    const float scale = queries.scale * 1.44269504088896341f;  // scores in powers of two
    for (int32_t i = 0; i < queries.count(); ++i) {
      const float* from = queries.at(queries.from, i, cache_.head_dim);
      float* q = &s_.q[at(i, padded_)];
      for (int32_t d = 0; d < cache_.head_dim; ++d) q[d] = from[d] * scale;
      if (cache_.type == KernelKv::int4) rotate_head({q, static_cast<size_t>(cache_.head_dim)});
      if (in_bf16()) {
        int16_t* to = &s_.q_codes[at(i, padded_)];
        for (int32_t d = 0; d < padded_; d += kKvLanes) {  // runs of known length, for the compiler's vectors
          for (int32_t j = 0; j < kKvLanes; ++j) to[d + j] = static_cast<int16_t>(f32_to_bf16(q[d + j]));
        }
      }
      if (in_bytes()) {
        auto* codes = reinterpret_cast<int8_t*>(s_.q_codes.data()) + at(i, padded_);
        quantize_query(q, 127.0f, codes, &s_.q_scales[static_cast<size_t>(i)]);
        for (int32_t d = 0; d < padded_; ++d) s_.q_sums[static_cast<size_t>(i)] += codes[d];
      } else if (integer) {
        // As many of 16 bits as leave room in 32 for a sum over the head.
        const int64_t largest_sum = int64_t{kv_largest_code(cache_.type)} * padded_;
        const float largest_code = static_cast<float>(std::min<int64_t>(32767, INT32_MAX / largest_sum));
        quantize_query(q, largest_code, &s_.q_codes[at(i, padded_)], &s_.q_scales[static_cast<size_t>(i)]);
      }
    }
  }
  // `codes` are zero before.
  template <class Code>
  void quantize_query(const float* q, float largest_code, Code* codes, float* scale) const {
    float largest = 0.0f;
    bool finite = true;
    for (int32_t d = 0; d < padded_; ++d) {
      finite = finite && std::isfinite(q[d]);
      largest = std::max(largest, std::fabs(q[d]));
    }
    *scale = finite ? largest / largest_code : std::nanf("");
    if (!finite || largest < 0x1p-100f) return;  // the codes are zero
    const float inverse = largest_code / largest;
    for (int32_t d = 0; d < padded_; ++d) codes[d] = static_cast<Code>(std::lrint(q[d] * inverse));
  }

  // more: the next segment comes next, and its first block is asked for.
  void run_segment(const Queries& queries, int32_t segment, bool more) {
    std::fill(s_.out.begin(), s_.out.end(), 0.0f);
    std::fill(s_.sums.begin(), s_.sums.end(), 0.0f);
    std::fill(s_.max.begin(), s_.max.end(), kNothing);
    const int32_t begin = std::max(queries.begin(0) / kKvTokens * kKvTokens, segment * kSegment);
    const int32_t end = std::min(queries.end(queries.rows - 1), (segment + 1) * kSegment);
    s_.places.clear();
    for (int32_t t = begin; t < end; t += kKvTokens) s_.places.push_back(block_at(t, queries.kv_head));
    const int32_t count = static_cast<int32_t>(s_.places.size());
    s_.places.push_back(more ? block_at((segment + 1) * kSegment, queries.kv_head) : s_.places.back());
    auto whole = [&](int32_t block) {  // every row sees all of it
      const int32_t t = begin + block * kKvTokens;
      return queries.begin(queries.rows - 1) <= t && queries.end(0) >= t + kKvTokens;
    };
    for (int32_t block = 0; block < count;) {
      int32_t last = block;
      while (last < count && whole(last)) ++last;
      if (last > block) {
        attend(0, queries.count(), 0, kKvTokens, block, last - block);
        block = last;
      } else {
        run_ragged(queries, begin + block * kKvTokens, block);
        ++block;
      }
    }
  }

  // The keys [t, t + 32), of which rows see parts: those that see the same together.
  void run_ragged(const Queries& queries, int32_t t, int32_t block) {
    auto seen = [&](int32_t row) {
      return std::pair(std::max(queries.begin(row) - t, 0), std::min(queries.end(row) - t, kKvTokens));
    };
    for (int32_t row = 0; row < queries.rows;) {
      const auto [first, end] = seen(row);
      int32_t last = row + 1;
      while (last < queries.rows && seen(last) == std::pair(first, end)) ++last;
      if (first < end) attend(row * queries.heads, (last - row) * queries.heads, first, end, block, 1);
      row = last;
    }
  }
  int64_t block_at(int32_t t, int32_t kv_head) const {
    return cache_.places.at(cache_.block_table[t / kKvTokens], kv_head);
  }
  void attend(int32_t query, int32_t count, int32_t first, int32_t end, int32_t block, int32_t num_blocks) {
    AttendBlocks a{};
    a.type = cache_.type;
    a.head_dim = cache_.head_dim;
    a.k = cache_.k;
    a.v = cache_.v;
    a.places = &s_.places[static_cast<size_t>(block)];
    a.num_blocks = num_blocks;
    a.first = first;
    a.end = end;
    a.num_queries = count;
    a.q = &s_.q[at(query, padded_)];
    a.out = &s_.out[at(query, padded_)];
    a.max = &s_.max[static_cast<size_t>(query)];
    a.sums = &s_.sums[at(query, kKvLanes)];
    a.scores = s_.scores.data();
    a.corrections = s_.corrections.data();
    a.tile = s_.tile.data();
    a.wide = s_.wide.data();
    if (kv_is_integer(cache_.type) || in_bf16()) {
      a.q_codes = &s_.q_codes[at(query, padded_) / (in_bytes() ? 2 : 1)];
      a.p_codes = s_.p_codes.data();
    }
    if (kv_is_integer(cache_.type)) {
      a.q_scales = &s_.q_scales[static_cast<size_t>(query)];
      a.q_sums = &s_.q_sums[static_cast<size_t>(query)];
      a.p_scales = s_.p_scales.data();
    }
    kernels_.attend(a);
  }
  void take(int32_t query, float* partial) const {
    std::memcpy(partial, &s_.out[at(query, padded_)], static_cast<size_t>(padded_) * sizeof(float));
    partial[padded_] = s_.max[static_cast<size_t>(query)];
    const float* lanes = &s_.sums[at(query, kKvLanes)];
    float sum = 0.0f;
    for (int32_t i = 0; i < kKvLanes; ++i) sum += lanes[i];
    partial[padded_ + 1] = sum;
  }

  const CpuKernels& kernels_;
  AttentionScratch::PerThread& s_;
  const Cache& cache_;
  int32_t padded_;
};

// An item of work: queries, and the cache of their sequence.
struct Item {
  Queries queries;
  Cache cache;
};

void run_items(const CpuKernels& kernels, ThreadPool& pool, AttentionScratch& scratch, const std::vector<Item>& items) {
  scratch.threads.resize(static_cast<size_t>(pool.num_threads()));
  auto block_attention = [&](const Item& item, int worker) {
    return BlockAttention(kernels, scratch.threads[static_cast<size_t>(worker)], item.cache);
  };
  const int64_t count = static_cast<int64_t>(items.size());
  int64_t num_segments = 0, floats = 0;
  std::vector<int64_t> partials_at;  // where those of an item begin
  for (const Item& item : items) {
    const int32_t segments = item.queries.last_segment() + 1 - item.queries.first_segment();
    partials_at.push_back(floats);
    num_segments += segments;
    floats += segments * item.queries.count() * partial_floats(item.cache.head_dim);
  }
  constexpr int64_t kMostFloats = int64_t{4} << 20, kParts = 4;  // for each thread
  if (count >= kParts * pool.num_threads() || num_segments == count || floats > kMostFloats) {
    // Late rows have the most keys: they go first, so that no thread is left alone with them.
    pool.parallel_for(count, 1, [&](int64_t begin, int64_t end, int worker) {
      for (int64_t i = begin; i < end; ++i) {
        const Item& item = items[items.size() - 1 - static_cast<size_t>(i)];
        block_attention(item, worker).run_all(item.queries);
      }
    });
    return;
  }
  // Few items leave threads without work, or with the last one alone: their segments are shared, too, some neighbours at a time.
  struct Part {
    size_t item;
    int32_t first, end;  // segments
  };
  std::vector<Part> parts;
  const int32_t most = static_cast<int32_t>(std::max<int64_t>(1, num_segments / (kParts * pool.num_threads())));
  for (size_t i = 0; i < items.size(); ++i) {
    const int32_t end = items[i].queries.last_segment() + 1;
    for (int32_t s = items[i].queries.first_segment(); s < end; s += most) parts.push_back({i, s, std::min(end, s + most)});
  }
  scratch.partials.resize(std::max(static_cast<size_t>(floats), scratch.partials.size()));
  auto partials_of = [&](size_t item, int32_t segment) {
    const Queries& q = items[item].queries;
    const int64_t each = q.count() * partial_floats(items[item].cache.head_dim);
    return &scratch.partials[static_cast<size_t>(partials_at[item] + (segment - q.first_segment()) * each)];
  };
  pool.parallel_for(static_cast<int64_t>(parts.size()), 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t i = begin; i < end; ++i) {
      const Part& part = parts[static_cast<size_t>(i)];
      const Queries& q = items[part.item].queries;
      BlockAttention attention = block_attention(items[part.item], worker);
      attention.run(q, part.first, part.end, [&](int32_t segment) { attention.take_all(q, partials_of(part.item, segment)); });
    }
  });
  pool.parallel_for(count, 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t i = begin; i < end; ++i) {
      const size_t item = static_cast<size_t>(i);
      const Queries& q = items[item].queries;
      float* total = partials_of(item, q.first_segment());
      for (int32_t s = q.first_segment() + 1; s <= q.last_segment(); ++s) {
        merge_partials(partials_of(item, s), total, q.count(), items[item].cache.head_dim);
      }
      block_attention(items[item], worker).write(q, total);
    }
  });
}

// Rows of an item: so many that their queries fill kMaxQueries, fewer when threads would be idle.
int32_t rows_of_item(int64_t all_rows, int32_t heads, int64_t items_per_row, int num_threads) {
  constexpr int32_t kFewRows = 8;
  int32_t rows = std::max(1, kMaxQueries / heads);
  while (rows > kFewRows && all_rows / rows * items_per_row < 4 * num_threads) rows /= 2;
  return rows;
}

}  // namespace

void cpu_store_kv(ThreadPool& pool, MatrixView qkv, int32_t num_heads, std::span<const int32_t> slots,
                  const KvLayerView& kv) {
  CHECK(kv.block_size == kKvTokens);
  const KernelKv type = kernel_kv(kv.dtype);
  const KvPlaces places(type, kv.num_blocks, kv.num_kv_heads, kv.head_dim);
  for (int32_t slot : slots) CHECK(slot >= 0 && slot < kv.num_blocks * kv.block_size);
  // By heads: tokens of one block share cache lines.
  auto store = [&](int64_t begin, int64_t end, int) {
    for (int64_t h = begin; h < end; ++h) {
      for (size_t t = 0; t < slots.size(); ++t) {
        const float* k = qkv.row_f32(static_cast<int64_t>(t)) + (num_heads + h) * kv.head_dim;
        const float* v = k + int64_t{kv.num_kv_heads} * kv.head_dim;
        const int64_t at = places.at(slots[t] / kKvTokens, static_cast<int32_t>(h));
        const size_t n = static_cast<size_t>(kv.head_dim);
        store_kv_head(type, true, {k, n}, slots[t] % kKvTokens, static_cast<uint8_t*>(kv.k) + at);
        store_kv_head(type, false, {v, n}, slots[t] % kKvTokens, static_cast<uint8_t*>(kv.v) + at);
      }
    }
  };
  const int64_t elements = static_cast<int64_t>(slots.size()) * kv.num_kv_heads * kv.head_dim;
  if (elements < kSerialElements) store(0, kv.num_kv_heads, 0);
  else pool.parallel_for(kv.num_kv_heads, 1, store);
}

void cpu_attention(const CpuKernels& kernels, ThreadPool& pool, AttentionScratch& scratch,
                   const AttentionArgs& args) {
  const KvLayerView& kv = args.kv;
  CHECK(kv.block_size == kKvTokens && args.num_heads % kv.num_kv_heads == 0);
  const KernelKv type = kernel_kv(kv.dtype);
  Cache cache{static_cast<const uint8_t*>(kv.k),
              static_cast<const uint8_t*>(kv.v),
              type,
              kv.head_dim,
              {type, kv.num_blocks, kv.num_kv_heads, kv.head_dim},
              nullptr};
  const int32_t heads = args.num_heads / kv.num_kv_heads;
  int64_t all_rows = 0;
  for (const SequenceSpan& s : args.sequences) all_rows += s.num_rows;
  const int32_t rows = rows_of_item(all_rows, heads, kv.num_kv_heads, pool.num_threads());
  std::vector<Item> items;
  for (const SequenceSpan& s : args.sequences) {
    cache.block_table = s.block_table;
    for (int32_t row = 0; row < s.num_rows; row += rows) {
      for (int32_t h = 0; h < kv.num_kv_heads; ++h) {
        Queries q;
        q.from = args.qkv;
        q.to = args.out;
        q.first_row = s.first_row + row;
        q.rows = std::min(rows, s.num_rows - row);
        q.heads = heads;
        q.first_head = h * heads;
        q.kv_head = h;
        q.first_end = s.num_tokens - s.num_rows + row + 1;
        q.window = args.sliding_window;
        q.scale = args.scale;
        items.push_back({q, cache});
      }
    }
  }
  run_items(kernels, pool, scratch, items);
}

void cpu_attention_full(const CpuKernels& kernels, ThreadPool& pool, AttentionScratch& scratch,
                        MatrixView qkv, int32_t num_heads, int32_t head_dim, float scale,
                        std::span<const int32_t> segments, MatrixView out) {
  constexpr KernelKv kType = KernelKv::f32;
  const int64_t head_bytes = kv_head_bytes(kType, head_dim), width = int64_t{num_heads} * head_dim;
  const size_t n = static_cast<size_t>(head_dim);
  int32_t first = 0;
  for (int32_t size : segments) {
    const int32_t blocks = (size + kKvTokens - 1) / kKvTokens;
    scratch.keys.resize(std::max(scratch.keys.size(), static_cast<size_t>(blocks * head_bytes)));
    scratch.values.resize(scratch.keys.size());
    while (static_cast<int32_t>(scratch.block_table.size()) < blocks) {
      scratch.block_table.push_back(static_cast<int32_t>(scratch.block_table.size()));
    }
    const Cache cache{scratch.keys.data(),          scratch.values.data(),     kType, head_dim,
                      {kType, blocks, 1, head_dim}, scratch.block_table.data()};
    const int32_t rows = rows_of_item(size, 1, 1, pool.num_threads());
    // A head at a time, so that its keys and values, which every row reads, stay in the caches.
    for (int32_t h = 0; h < num_heads; ++h) {
      pool.parallel_for(blocks, 4, [&](int64_t begin, int64_t end, int) {
        for (int64_t t = begin * kKvTokens; t < std::min<int64_t>(end * kKvTokens, size); ++t) {
          const float* row = qkv.row_f32(first + t) + int64_t{h} * head_dim;
          const int64_t at = t / kKvTokens * head_bytes;
          store_kv_head(kType, true, {row + width, n}, static_cast<int32_t>(t % kKvTokens), scratch.keys.data() + at);
          store_kv_head(kType, false, {row + 2 * width, n}, static_cast<int32_t>(t % kKvTokens), scratch.values.data() + at);
        }
      });
      std::vector<Item> items;
      for (int32_t row = 0; row < size; row += rows) {
        Queries q;
        q.from = qkv;
        q.to = out;
        q.first_row = first + row;
        q.rows = std::min(rows, size - row);
        q.heads = 1;
        q.first_head = h;
        q.first_end = size;
        q.step = 0;
        q.scale = scale;
        items.push_back({q, cache});
      }
      run_items(kernels, pool, scratch, items);
    }
    first += size;
  }
}

}  // namespace bise
