#include "support/reference_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/float_types.h"
#include "base/thread_pool.h"
#include "support/reference_kv.h"
#include "tensor/weight_format.h"

namespace bise {
namespace {

struct Decoded : WeightStorage {
  std::vector<float> values;  // [rows, columns]
};

// The bytes of a head of a block: of every eight blocks (or of what is left), [kv_head][block] runs of 32 tokens.
std::byte* kv_head(void* data, const KvLayerView& kv, int64_t block, int64_t head) {
  const int64_t bytes = 32 * static_cast<int64_t>(kv_token_bytes(kv.dtype, kv.head_dim));
  const int64_t begin = block - block % 8, end = begin + 8 < kv.num_blocks ? begin + 8 : kv.num_blocks;
  int64_t runs = begin * kv.num_kv_heads;  // before it
  for (int64_t h = 0; h < head; ++h) runs += end - begin;
  return static_cast<std::byte*>(data) + (runs + block % 8) * bytes;
}

double activate(double x, Activation act) {
  switch (act) {
    case Activation::silu: return x / (1.0 + std::exp(-x));
    case Activation::gelu_erf: return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0)));
    case Activation::gelu_tanh: break;
  }
  return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
}

// softmax(scores) V for one query and head; `key` and `value` give element d of token t.
template <class Key, class Value>
void attend(const float* q, int64_t first, int64_t end, int32_t head_dim, float scale, Key key,
            Value value, float* out) {
  std::vector<double> scores;
  double top = -1e300, sum = 0.0;
  for (int64_t t = first; t < end; ++t) {
    double dot = 0.0;
    for (int32_t d = 0; d < head_dim; ++d) dot += double{q[d]} * key(t, d);
    scores.push_back(dot * scale);
    top = std::max(top, scores.back());
  }
  for (double& s : scores) sum += s = std::exp(s - top);
  for (int32_t d = 0; d < head_dim; ++d) {
    double total = 0.0;
    for (int64_t t = first; t < end; ++t) total += scores[static_cast<size_t>(t - first)] * value(t, d);
    out[d] = static_cast<float>(total / sum);
  }
}

template <class Take>
void each_logit_group(int64_t n, Take take) {
  for (int64_t begin = 0; begin < n; begin += kLogitGroup) take(begin, std::min(n, begin + kLogitGroup));
}
bool logit_peaks(const float* x, int64_t n, float* peaks) {
  each_logit_group(n, [&](int64_t begin, int64_t end) { *peaks++ = *std::max_element(x + begin, x + end); });
  return std::none_of(x, x + n, [](float logit) { return std::isnan(logit) || logit > std::numeric_limits<float>::max(); });
}
void logit_exp_sums(const float* x, int64_t n, float top, float factor, float* sums) {
  each_logit_group(n, [&](int64_t begin, int64_t end) {
    double sum = 0.0;
    for (int64_t i = begin; i < end; ++i) sum += std::exp((double{x[i]} - double{top}) * double{factor});
    *sums++ = static_cast<float>(sum);
  });
}

class ReferenceBackend : public Backend {
 public:
  std::string description() const override { return "reference"; }
  int num_threads() const override { return 1; }
  ThreadPool& host_threads() override { return threads_; }
  const LogitMath& logit_math() const override {
    static constexpr LogitMath kMath = {logit_peaks, logit_exp_sums};
    return kMath;
  }
  std::string isa() const override { return "reference"; }
  Precision precision() const override { return Precision::reference; }
  uint32_t activation_bytes() const override { return 4; }

  Result<Buffer> allocate(uint64_t bytes, const char*) override {
    void* data = std::aligned_alloc(64, round_up(std::max<uint64_t>(bytes, 1), 64));
    std::memset(data, 0, bytes);
    return Buffer(data, bytes, [](void* p, size_t) { std::free(p); });
  }
  WeightCost weight_cost(std::span<const WeightView>) const override { return {}; }
  Result<void> plan_weights(WeightPlan) override { return {}; }  // everything lives in memory
  Result<Weight> pack_weight(std::span<const WeightView> parts) override {
    Weight weight;
    weight.name = parts[0].name;
    weight.format = parts[0].format;
    weight.columns = parts[0].columns;
    auto storage = std::make_unique<Decoded>();
    for (const WeightView& part : parts) {
      CHECK(part.columns == weight.columns);
      for (int64_t row = 0; row < part.rows; ++row) {
        storage->values.resize(storage->values.size() + static_cast<size_t>(part.columns));
        decode_row(part, row, std::span(storage->values).last(static_cast<size_t>(part.columns)));
      }
      weight.rows += part.rows;
    }
    weight.bytes = storage->values.size() * 4;
    weight.storage = std::move(storage);
    return weight;
  }
  Result<Buffer> upload(std::span<const float> values) override {
    Buffer buffer = TRY(allocate(values.size() * 4, "a vector"));
    std::memcpy(buffer.data(), values.data(), values.size() * 4);
    return buffer;
  }
  Result<std::span<float>> on_host(MatrixView x) override {
    return std::span(x.row_f32(0), static_cast<size_t>(x.rows * x.columns));
  }
  Result<void> write(std::span<const float> from, MatrixView to) override {
    std::memcpy(to.data, from.data(), from.size() * 4);
    return {};
  }
  void embed(const Weight& table, std::span<const int32_t> ids, MatrixView out) override {
    for (size_t i = 0; i < ids.size(); ++i) {
      std::memcpy(out.row_f32(static_cast<int64_t>(i)), row(table, ids[i]), static_cast<size_t>(table.columns) * 4);
    }
  }
  void rms_norm(MatrixView x, const Buffer& weight, float eps, MatrixView out) override {
    const float* w = static_cast<const float*>(weight.data());
    for (int64_t i = 0; i < x.rows; ++i) {
      double sum = 0.0;
      for (int64_t c = 0; c < x.columns; ++c) sum += double{x.row_f32(i)[c]} * x.row_f32(i)[c];
      double factor = 1.0 / std::sqrt(sum / static_cast<double>(x.columns) + eps);
      for (int64_t c = 0; c < x.columns; ++c) {
        out.row_f32(i)[c] = static_cast<float>(x.row_f32(i)[c] * factor * w[c]);
      }
    }
  }
  void matmul(const Weight& weight, MatrixView x, MatrixView y, bool accumulate) override {
    for (int64_t t = 0; t < x.rows; ++t) {
      for (int64_t r = 0; r < weight.rows; ++r) {
        const float* w = row(weight, r);
        double sum = 0.0;
        for (int64_t c = 0; c < x.columns; ++c) sum += double{w[c]} * x.row_f32(t)[c];
        float& out = y.row_f32(t)[r];
        out = static_cast<float>(accumulate ? out + sum : sum);
      }
    }
  }
  void rope(const RopeArgs& a) override {
    const int32_t half = a.head_dim / 2;
    for (int64_t t = 0; t < a.x.rows; ++t) {
      for (int32_t h = a.first_head; h < a.first_head + a.num_heads; ++h) {
        float* p = a.x.row_f32(t) + int64_t{h} * a.head_dim;
        float factor = a.row_scale == nullptr ? 1.0f : a.row_scale[t];
        for (int32_t i = 0; i < half; ++i) {
          float c = a.cosine[t * half + i], s = a.sine[t * half + i], u = p[i], v = p[i + half];
          p[i] = (u * c - v * s) * factor;
          p[i + half] = (v * c + u * s) * factor;
        }
      }
    }
  }
  void store_kv(MatrixView qkv, int32_t num_heads, std::span<const int32_t> slots,
                const KvLayerView& kv) override {
    for (size_t t = 0; t < slots.size(); ++t) {
      const float* p = qkv.row_f32(static_cast<int64_t>(t)) + int64_t{num_heads} * kv.head_dim;
      for (int32_t h = 0; h < kv.num_kv_heads; ++h) {
        const int64_t block = slots[t] / kv.block_size;
        const int32_t token = slots[t] % kv.block_size;
        const size_t n = static_cast<size_t>(kv.head_dim);
        test::reference_store_kv(kv.dtype, true, {p + h * kv.head_dim, n}, token,
                                 reinterpret_cast<uint8_t*>(kv_head(kv.k, kv, block, h)));
        test::reference_store_kv(kv.dtype, false, {p + (kv.num_kv_heads + h) * kv.head_dim, n}, token,
                                 reinterpret_cast<uint8_t*>(kv_head(kv.v, kv, block, h)));
      }
    }
  }
  void attention(const AttentionArgs& a) override {
    const KvLayerView& kv = a.kv;
    for (const SequenceSpan& s : a.sequences) {
      for (int32_t h = 0; h < kv.num_kv_heads; ++h) {
        std::vector<std::vector<double>> keys, values;
        for (int32_t t = 0; t < s.num_tokens; ++t) {
          const int32_t block = s.block_table[t / kv.block_size], token = t % kv.block_size;
          keys.push_back(test::reference_load_kv(kv.dtype, true, kv.head_dim, token,
                                                 reinterpret_cast<uint8_t*>(kv_head(kv.k, kv, block, h))));
          values.push_back(test::reference_load_kv(kv.dtype, false, kv.head_dim, token,
                                                   reinterpret_cast<uint8_t*>(kv_head(kv.v, kv, block, h))));
        }
        attend_head(a, s, h, keys, values);
      }
    }
  }
  void attention_full(MatrixView qkv, int32_t num_heads, int32_t head_dim, float scale,
                      std::span<const int32_t> segments, MatrixView out) override {
    int64_t width = int64_t{num_heads} * head_dim, first = 0;
    for (int32_t size : segments) {
      for (int64_t r = first; r < first + size; ++r) {
        for (int32_t h = 0; h < num_heads; ++h) {
          int64_t at = int64_t{h} * head_dim;
          attend(qkv.row_f32(r) + at, first, first + size, head_dim, scale,
                 [&](int64_t t, int32_t d) { return qkv.row_f32(t)[width + at + d]; },
                 [&](int64_t t, int32_t d) { return qkv.row_f32(t)[2 * width + at + d]; },
                 out.row_f32(r) + at);
        }
      }
      first += size;
    }
  }
  void gated_activation(MatrixView x, Activation act, MatrixView out) override {
    for (int64_t r = 0; r < out.rows; ++r) {
      for (int64_t c = 0; c < out.columns; ++c) {
        out.row_f32(r)[c] =
            static_cast<float>(activate(x.row_f32(r)[c], act) * x.row_f32(r)[out.columns + c]);
      }
    }
  }
  void activation(MatrixView x, Activation act) override {
    for (int64_t i = 0; i < x.rows * x.columns; ++i) {
      x.f32()[i] = static_cast<float>(activate(x.f32()[i], act));
    }
  }
  void add_bias(MatrixView x, const Buffer& bias) override {
    for (int64_t r = 0; r < x.rows; ++r) {
      for (int64_t c = 0; c < x.columns; ++c) x.row_f32(r)[c] += static_cast<const float*>(bias.data())[c];
    }
  }
  void gather_rows(MatrixView x, std::span<const int32_t> rows, MatrixView out) override {
    for (size_t i = 0; i < rows.size(); ++i) {
      std::memcpy(out.row_f32(static_cast<int64_t>(i)), x.row_f32(rows[i]), static_cast<size_t>(x.columns) * 4);
    }
  }
  void scatter_rows(MatrixView x, std::span<const int32_t> rows, MatrixView out) override {
    for (size_t i = 0; i < rows.size(); ++i) {
      std::memcpy(out.row_f32(rows[i]), x.row_f32(static_cast<int64_t>(i)), static_cast<size_t>(x.columns) * 4);
    }
  }
  void unfold_patches(MatrixView x, int32_t, int32_t grid_columns, int32_t merge, MatrixView out) override {
    int32_t out_columns = grid_columns / merge;
    for (int64_t t = 0; t < out.rows; ++t) {
      int64_t row = t / out_columns * merge, column = t % out_columns * merge;
      for (int64_t c = 0; c < x.columns; ++c) {
        for (int32_t di = 0; di < merge; ++di) {
          for (int32_t dj = 0; dj < merge; ++dj) {
            out.row_f32(t)[(c * merge + di) * merge + dj] =
                x.row_f32((row + di) * grid_columns + column + dj)[c];
          }
        }
      }
    }
  }
  Result<void> synchronize() override { return {}; }
  std::unique_ptr<ReadProbe> probe_reads(double) override { return nullptr; }
  MatrixPeak measure_matrix_peak(double) override { return {}; }  // it is in nobody's race
  Arithmetic product_arithmetic(const WeightView&, int64_t) const override { return Arithmetic::float32; }

 private:
  ThreadPool threads_{1};
  static const float* row(const Weight& weight, int64_t r) {
    return static_cast<const Decoded&>(*weight.storage).values.data() + r * weight.columns;
  }
  // All query heads of one KV head, given its keys and values by token.
  static void attend_head(const AttentionArgs& a, const SequenceSpan& s, int32_t kv_head_index,
                          const std::vector<std::vector<double>>& keys, const std::vector<std::vector<double>>& values) {
    const int32_t head_dim = a.kv.head_dim, heads = a.num_heads / a.kv.num_kv_heads;
    for (int32_t r = 0; r < s.num_rows; ++r) {
      const int64_t end = s.num_tokens - s.num_rows + r + 1;
      const int64_t first = a.sliding_window > 0 ? std::max<int64_t>(0, end - a.sliding_window) : 0;
      for (int32_t h = kv_head_index * heads; h < (kv_head_index + 1) * heads; ++h) {
        attend(a.qkv.row_f32(s.first_row + r) + int64_t{h} * head_dim, first, end, head_dim, a.scale,
               [&](int64_t t, int32_t d) { return keys[static_cast<size_t>(t)][static_cast<size_t>(d)]; },
               [&](int64_t t, int32_t d) { return values[static_cast<size_t>(t)][static_cast<size_t>(d)]; },
               a.out.row_f32(s.first_row + r) + int64_t{h} * head_dim);
      }
    }
  }
};

}  // namespace

std::unique_ptr<Backend> create_reference_backend() { return std::make_unique<ReferenceBackend>(); }

}  // namespace bise
