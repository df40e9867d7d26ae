#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "backend/cpu/tile_packing.h"
#include "base/float_types.h"
#include "base/random.h"
#include "support/op_cases.h"

namespace bise::test {
namespace {

constexpr double kUnit = 0x1p-24;        // half an ulp of 1.0f: the rounding error of one operation
constexpr double kTiny = 0x1p-126;       // results below the normal floats
constexpr uint32_t kGuardBits = 0x7FC0BEEFu;  // a NaN that no operation makes
constexpr int32_t kBlockSize = 32;       // of the KV cache
constexpr int64_t kScaleBlock = 32;      // columns that share an 8-bit activation scale

float draw(uint64_t seed, uint64_t stream, uint64_t position) {
  return static_cast<float>(2.0 * random_uniform(seed, stream, position) - 1.0);
}

// Activations as models have them: mostly small, some outliers, some blocks that are all zero.
float activation_value(uint64_t seed, int64_t token, int64_t column) {
  const uint64_t t = static_cast<uint64_t>(token), c = static_cast<uint64_t>(column);
  if ((c / 32 + t) % 5 == 4) return 0.0f;
  const float value = draw(seed, 100 + t, c);
  return (c + 7 * t) % 97 == 13 ? 30.0f * value : value;
}

}  // namespace

GuardedMatrix::GuardedMatrix(int64_t rows, int64_t columns)
    : rows_(rows), columns_(columns),
      memory_(static_cast<size_t>(rows * columns) + 2 * kGuard, std::bit_cast<float>(kGuardBits)) {}

bool GuardedMatrix::guards_hold() const {
  for (size_t i = 0; i < kGuard; ++i) {
    if (std::bit_cast<uint32_t>(memory_[i]) != kGuardBits) return false;
    if (std::bit_cast<uint32_t>(memory_[memory_.size() - 1 - i]) != kGuardBits) return false;
  }
  return true;
}

Buffer GuardedMatrix::copy_to(Backend& backend) const {
  Buffer buffer = backend.allocate(memory_.size() * sizeof(float), "a guarded matrix").value();
  CHECK(backend.write(memory_, {buffer.data(), 1, static_cast<int64_t>(memory_.size())}).has_value());
  return buffer;
}
void GuardedMatrix::copy_from(Backend& backend, const Buffer& buffer) {
  const std::span<float> there = backend.on_host({buffer.data(), 1, static_cast<int64_t>(memory_.size())}).value();
  memory_.assign(there.begin(), there.end());
}

namespace {

// Bytes of a backend, as many as a whole number of float32.
Buffer filled(Backend& backend, size_t bytes, uint32_t bits) {
  Buffer buffer = backend.allocate(bytes, "a cache").value();
  CHECK(bytes % sizeof(float) == 0);
  const std::vector<float> values(bytes / sizeof(float), std::bit_cast<float>(bits));
  CHECK(backend.write(values, {buffer.data(), 1, static_cast<int64_t>(values.size())}).has_value());
  return buffer;
}
std::vector<std::byte> bytes_in(Backend& backend, const Buffer& buffer) {
  const std::span<float> there =
      backend.on_host({buffer.data(), 1, static_cast<int64_t>(buffer.bytes() / sizeof(float))}).value();
  const auto bytes = std::as_bytes(there);
  return {bytes.begin(), bytes.end()};
}

}  // namespace

std::vector<float> quantized_and_back(std::span<const float> x) {
  std::vector<float> out(x.size());
  for (size_t b = 0; b + 32 <= x.size(); b += 32) {
    float largest = 0.0f;
    for (size_t i = b; i < b + 32; ++i) largest = std::max(largest, std::fabs(x[i]));
    for (size_t i = b; i < b + 32; ++i) {
      const float code = largest >= 0x1p-119f ? std::rint(x[i] * (127.0f / largest)) : 0.0f;
      out[i] = code * (largest / 127.0f);
    }
  }
  return out;
}

std::vector<float> e4m3_and_back(std::span<const float> x, float scale) {
  std::vector<float> out;
  for (float value : x) out.push_back(e4m3_to_f32(f32_to_e4m3(value / scale)) * scale);
  return out;
}

OpRun::OpRun(Backend& backend, const OpCase& c, uint64_t seed, int64_t first_token, int64_t num_tokens)
    : backend_(backend), case_(c) {
  if (num_tokens >= 0) case_.tokens = num_tokens;
  if (c.op == Op::attention || c.op == Op::attention_full) {
    make_attention(seed);
    return;
  }
  const int64_t tokens = case_.tokens, columns = c.columns;
  x_ = GuardedMatrix(tokens, columns);
  const bool is_wide = c.op == Op::activation || c.op == Op::gated_activation;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t k = 0; k < columns; ++k) {
      float& x = x_.view().row_f32(t)[k];
      x = activation_value(seed, first_token + t, k);
      if (is_wide && k < columns / (c.op == Op::activation ? 1 : 2)) x *= 12.0f;
    }
  }
  int64_t out_rows = tokens, out_columns = columns;
  if (!c.parts.empty()) {
    weights_ = std::make_unique<RandomWeights>(c.parts, columns, seed);
    weight_ = backend.pack_weight(weights_->views()).value();
  }
  switch (c.op) {
    case Op::matmul: out_columns = weight_.rows; break;
    case Op::embed:
      for (int64_t t = 0; t < tokens; ++t) rows_.push_back(static_cast<int32_t>((first_token + t) * 13 % weight_.rows));
      break;
    case Op::rms_norm:
    case Op::add_bias:
      for (int64_t k = 0; k < columns; ++k) host_vector_.push_back(1.0f + draw(seed, 3, static_cast<uint64_t>(k)));
      vector_ = backend.upload(host_vector_).value();
      break;
    case Op::gated_activation: out_columns = columns / 2; break;
    case Op::rope: {
      const int64_t half = c.head_dim / 2;
      cosine_ = GuardedMatrix(tokens, half);
      sine_ = GuardedMatrix(tokens, half);
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t i = 0; i < half; ++i) {
          const double angle = static_cast<double>(first_token + t + 1) * std::pow(1e-3, static_cast<double>(i) / static_cast<double>(half));
          cosine_.view().row_f32(t)[i] = static_cast<float>(std::cos(angle));
          sine_.view().row_f32(t)[i] = static_cast<float>(std::sin(angle));
        }
        row_scale_.push_back(1.0f + 0.1f * static_cast<float>(first_token + t));
      }
      break;
    }
    case Op::gather_rows:
      for (int64_t t = 0; t < 2 * tokens; ++t) rows_.push_back(static_cast<int32_t>(t * 3 % tokens));
      out_rows = 2 * tokens;
      break;
    case Op::scatter_rows:
      for (int64_t t = 0; t < tokens; ++t) rows_.push_back(static_cast<int32_t>(2 * (tokens - 1 - t)));
      out_rows = 2 * tokens;
      break;
    case Op::unfold_patches:
      out_rows = tokens / (c.merge * c.merge);
      out_columns = columns * c.merge * c.merge;
      break;
    default: break;
  }
  out_ = GuardedMatrix(out_rows, out_columns);
  const bool in_place = c.op == Op::rope || c.op == Op::activation || c.op == Op::add_bias;
  if (in_place) initial_.assign(x_.values().begin(), x_.values().end());
  if (c.accumulate || c.op == Op::scatter_rows) {
    for (int64_t t = 0; t < out_rows; ++t) {
      for (int64_t r = 0; r < out_columns; ++r) {
        initial_.push_back(draw(seed, 50, static_cast<uint64_t>((first_token + t) * 100000 + r)));
      }
    }
  }
}

void OpRun::make_attention(uint64_t seed) {
  const OpCase& c = case_;
  const bool is_full = c.op == Op::attention_full;
  int64_t tokens = 0;
  for (const SequenceCase& s : c.sequences) tokens += s.num_rows;
  const int64_t columns = int64_t{c.num_heads + 2 * c.num_kv_heads} * c.head_dim;
  x_ = GuardedMatrix(tokens, columns);
  out_ = GuardedMatrix(tokens, int64_t{c.num_heads} * c.head_dim);
  // Token t of a sequence: queries up to 4, so that the softmax is not flat.
  auto fill = [&](float* row, int32_t id, int64_t token) {
    for (int64_t k = 0; k < columns; ++k) {
      row[k] = draw(seed, static_cast<uint64_t>(10000 * (id + 1) + token), static_cast<uint64_t>(k));
      if (k < int64_t{c.num_heads} * c.head_dim) row[k] *= 4.0f;
    }
  };
  int64_t row = 0;
  for (size_t i = 0; i < c.sequences.size(); ++i) {
    const SequenceCase& s = c.sequences[i];
    for (int32_t r = 0; r < s.num_rows; ++r) {
      fill(x_.view().row_f32(row++), is_full ? static_cast<int32_t>(i) : s.id, is_full ? r : s.num_tokens - s.num_rows + r);
    }
    segments_.push_back(s.num_rows);
  }
  if (is_full) return;

  int32_t num_blocks = 1;  // block 0 belongs to nobody
  for (const SequenceCase& s : c.sequences) num_blocks += (s.num_tokens + kBlockSize - 1) / kBlockSize;
  std::vector<int32_t> free_blocks;
  for (int32_t b = 1; b < num_blocks; ++b) free_blocks.push_back(b);
  for (size_t i = free_blocks.size(); i > 1; --i) {
    std::swap(free_blocks[i - 1], free_blocks[random_bits(seed, 7, i) % i]);
  }
  const size_t bytes = static_cast<size_t>(num_blocks) * kBlockSize * static_cast<size_t>(c.num_kv_heads) *
                       kv_token_bytes(c.kv, c.head_dim);
  key_memory_ = filled(backend_, bytes, 0xFFFFFFFFu);  // NaN where nothing was stored
  value_memory_ = filled(backend_, bytes, 0xFFFFFFFFu);
  kv_ = {key_memory_.data(), value_memory_.data(), c.kv, num_blocks, kBlockSize, c.num_kv_heads, c.head_dim};
  row = 0;
  for (const SequenceCase& s : c.sequences) {
    std::vector<int32_t> table;
    while (static_cast<int32_t>(table.size()) * kBlockSize < s.num_tokens) {
      table.push_back(free_blocks.back());
      free_blocks.pop_back();
    }
    GuardedMatrix all(s.num_tokens, columns);
    std::vector<int32_t> slots;
    for (int32_t t = 0; t < s.num_tokens; ++t) {
      fill(all.view().row_f32(t), s.id, t);
      slots.push_back(table[static_cast<size_t>(t / kBlockSize)] * kBlockSize + t % kBlockSize);
    }
    const Buffer there = all.copy_to(backend_);
    backend_.store_kv(all.view_in(there), c.num_heads, slots, kv_);
    CHECK(backend_.synchronize().has_value());
    block_tables_.push_back(std::move(table));
    spans_.push_back({static_cast<int32_t>(row), s.num_rows, s.num_tokens, nullptr});
    row += s.num_rows;
  }
  for (size_t i = 0; i < spans_.size(); ++i) spans_[i].block_table = block_tables_[i].data();
  keys_ = bytes_in(backend_, key_memory_);
  values_ = bytes_in(backend_, value_memory_);
}

void OpRun::run() {
  const OpCase& c = case_;
  std::copy(initial_.begin(), initial_.end(), out_.values().begin());
  const Buffer x_there = x_.copy_to(backend_), out_there = out_.copy_to(backend_);
  const MatrixView x = x_.view_in(x_there), out = out_.view_in(out_there);
  const float scale = c.head_dim == 0 ? 0.0f : 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  switch (c.op) {
    case Op::matmul: backend_.matmul(weight_, x, out, c.accumulate); break;
    case Op::embed: backend_.embed(weight_, rows_, out); break;
    case Op::rms_norm: backend_.rms_norm(x, vector_, 1e-5f, out); break;
    case Op::rope:
      backend_.rope({out, 1, c.num_heads, c.head_dim, cosine_.view().f32(), sine_.view().f32(), row_scale_.data()});
      break;
    case Op::attention:
      backend_.attention({x, c.num_heads, scale, c.sliding_window, kv_, spans_, out});
      break;
    case Op::attention_full:
      backend_.attention_full(x, c.num_heads, c.head_dim, scale, segments_, out);
      break;
    case Op::gated_activation: backend_.gated_activation(x, c.activation, out); break;
    case Op::activation: backend_.activation(out, c.activation); break;
    case Op::add_bias: backend_.add_bias(out, vector_); break;
    case Op::gather_rows: backend_.gather_rows(x, rows_, out); break;
    case Op::scatter_rows: backend_.scatter_rows(x, rows_, out); break;
    case Op::unfold_patches:
      backend_.unfold_patches(x, c.grid_rows, static_cast<int32_t>(x.rows / c.grid_rows), c.merge, out);
      break;
  }
  CHECK(backend_.synchronize().has_value());
  x_.copy_from(backend_, x_there);
  out_.copy_from(backend_, out_there);
}

bool OpRun::guards_hold() const {
  return x_.guards_hold() && out_.guards_hold() && cosine_.guards_hold() && sine_.guards_hold();
}

// |computed - exact| <= n u sum |a b| for a sum whose terms go through n roundings each (Higham,
// Accuracy and Stability, 3.1; the second order is left out and covered by the last factor).
bool OpRun::has_integer_products() const {
  const std::optional<TileFormat> tiles = tile_format_of(weights_->views()[0]);
  return tiles && tiles->integer;
}

std::vector<double> OpRun::matmul_bounds(Precision precision, bool exact_inputs) {
  const std::vector<WeightView>& views = weights_->views();
  const int64_t columns = case_.columns;
  std::vector<double> bounds;
  std::vector<float> w(static_cast<size_t>(columns));
  bounds.resize(output().size());
  int64_t first = 0;
  for (size_t part = 0; part < views.size(); ++part) {
    const bool is_fast = precision == Precision::fast;
    const std::optional<TileFormat> tiles = tile_format_of(views[part]);
    const bool is_integer = is_fast && tiles && tiles->integer, is_float = is_fast && tiles && !tiles->integer;
    // Roundings on the way of one term: integer tiles, float tiles (two chains), or dot products of
    // 64 lanes.
    const double n = is_integer ? 2.0 * static_cast<double>(columns) / kScaleBlock + 8
                     : is_float ? static_cast<double>(columns) / 2 + 6
                                           : static_cast<double>(columns) / 64 + 12;
    const double minimum = is_integer ? weights_->largest_minimum(part) : 0.0;
    for (int64_t r = 0; r < views[part].rows; ++r) {
      decode_row(views[part], r, w);
      for (int64_t t = 0; t < case_.tokens; ++t) {
        const float* x = x_.view().row_f32(t);
        double magnitude = 0.0, half_steps = 0.0;
        for (int64_t b = 0; b < columns; b += kScaleBlock) {
          double largest = 0.0, weight_sum = 0.0;
          for (int64_t k = b; k < std::min(columns, b + kScaleBlock); ++k) {
            const double absolute = std::fabs(double{w[static_cast<size_t>(k)]});
            largest = std::max(largest, std::fabs(double{x[k]}));
            weight_sum += absolute;
            magnitude += (absolute + 2.0 * minimum) * std::fabs(double{x[k]});
          }
          half_steps += largest / 127.0 / 2.0 * weight_sum;
        }
        const size_t at = static_cast<size_t>(t * out_.view().columns + first + r);
        double& bound = bounds[at];
        bound = n * kUnit * 1.01 * magnitude + kTiny;
        if (is_integer && !exact_inputs) bound += half_steps * 1.0001;
        if (case_.accumulate) bound += 2 * kUnit * (std::fabs(double{initial_[at]}) + std::fabs(double{output()[at]}));
      }
    }
    first += views[part].rows;
  }
  return bounds;
}

std::vector<double> OpRun::activation_bounds() {
  const OpCase& c = case_;
  std::vector<double> bounds;
  for (int64_t t = 0; t < out_.view().rows; ++t) {
    for (int64_t k = 0; k < out_.view().columns; ++k) {
      const size_t at = static_cast<size_t>(t * out_.view().columns + k);
      const bool gated = c.op == Op::gated_activation;
      const double x = std::fabs(double{gated ? x_.view().row_f32(t)[k] : initial_[at]});
      const double up = gated ? std::fabs(double{x_.view().row_f32(t)[k + out_.view().columns]}) : 1.0;
      const double result = std::fabs(double{output()[at]});
      // e^-88 stands for all that is below it; x times that may be left.
      double bound = x * up * 1e-38;
      switch (c.activation) {
        case Activation::silu: bound += 10 * kUnit * result; break;
        // 1 + erf cancels for negative x: absolute, in units of x.
        case Activation::gelu_erf: bound += 4 * kUnit * x * up; break;
        // The error of the exponent's argument becomes relative; the twin's 1 + tanh cancels in double.
        case Activation::gelu_tanh:
          bound += (10 + 6 * 1.5957691216 * x * (1.0 + 0.044715 * x * x)) * kUnit * result;
          bound += 0x1p-52 * x * up;
          break;
      }
      bounds.push_back(bound + kTiny);
    }
  }
  return bounds;
}

std::vector<double> OpRun::error_bounds(Precision precision, bool exact_inputs, bool narrow_attention) {
  const OpCase& c = case_;
  const double columns = static_cast<double>(c.columns), dim = c.head_dim;
  std::vector<double> bounds(output().size());
  switch (c.op) {
    case Op::matmul: return matmul_bounds(precision, exact_inputs);
    case Op::activation:
    case Op::gated_activation: return activation_bounds();
    case Op::rms_norm:
      for (size_t i = 0; i < bounds.size(); ++i) bounds[i] = (columns / 128 + 16) * kUnit * std::fabs(double{output()[i]}) + kTiny;
      return bounds;
    case Op::rope:
      for (size_t i = 0; i < bounds.size(); ++i) {
        const size_t row = i / static_cast<size_t>(c.columns), in_head = i % static_cast<size_t>(c.columns) % static_cast<size_t>(c.head_dim);
        const size_t half = static_cast<size_t>(c.head_dim) / 2;
        const size_t head = i % static_cast<size_t>(c.columns) / static_cast<size_t>(c.head_dim);
        if (head < 1 || head > static_cast<size_t>(c.num_heads)) continue;  // not rotated
        const size_t pair = in_head < half ? i + half : i - half;
        bounds[i] = 4 * kUnit * (std::fabs(initial_[i]) + std::fabs(initial_[pair])) * row_scale_[row] + kTiny;
      }
      return bounds;
    case Op::attention:
    case Op::attention_full: {
      // A score is a sum of dim roundings a term; its error, twice, is relative in every weight of the
      // softmax. |q| <= 4, |k|, |v| <= 1 (quantised a little more). Then the sums over the tokens, and exp.
      int32_t longest = 0;
      for (const SequenceCase& s : c.sequences) longest = std::max({longest, s.num_tokens, s.num_rows});
      const double q_largest = 4.02 * std::sqrt(dim);
      double score = (dim + 10) * kUnit * q_largest, weights = 2.0 * (longest + 32) * kUnit;
      if (narrow_attention && c.kv == KvDType::int8) {  // half a step of every element of a query, and of every weight of a block
        score += 0.51 / 127.0 * q_largest;
        weights += 32 * 0.51 / 255.0;
      } else if (c.op == Op::attention && (c.kv == KvDType::int8 || c.kv == KvDType::int4)) {
        // Half a step of every element of a query, and of the weights of a block's 32 values. With int4 both
        // meet rotated keys and values; |k| and |v| are at most sqrt(dim) as vectors, and so is any sum of theirs.
        const double codes = c.kv == KvDType::int8 ? 127.0 : 1016.0, padded = std::ceil(dim / 16) * 16;
        const double steps = std::min(32767.0, std::floor(2147483647.0 / (codes * padded)));
        score += 0.51 / steps * q_largest * std::sqrt(dim) * (c.kv == KvDType::int4 ? std::sqrt(dim) : std::sqrt(dim));
        weights += 32 * 0.51 / 32767.0 * (c.kv == KvDType::int4 ? std::sqrt(dim) : 1.0);
      }
      if (narrow_attention && c.kv != KvDType::int8) {  // every element of a query, and every weight of a value, rounded by half a unit at most
        score += 0x1p-8 * q_largest;
        weights += 0x1p-8;
      }
      bounds.assign(bounds.size(), 2.0 * score + weights);
      return bounds;
    }
    case Op::embed:
    case Op::add_bias:
    case Op::gather_rows:
    case Op::scatter_rows:
    case Op::unfold_patches: break;
  }
  return bounds;  // exact
}

}  // namespace bise::test
