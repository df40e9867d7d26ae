// The table of op cases that the conformance test and the benchmark share: what to run, on which
// shapes and formats, random inputs that depend on a seed and on the position of the token alone (so
// that a part of a batch can be run as a case of its own), and how far a float32 result may lie from
// the exact one.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "tensor/weight_format.h"

namespace bise::test {

enum class Op {
  matmul, embed, rms_norm, rope, attention, attention_full, gated_activation, activation, add_bias,
  gather_rows, scatter_rows, unfold_patches,
};
enum class Fp8Scales { tensor, row, block };

// One checkpoint matrix of a stacked weight.
struct PartCase {
  FormatId format{};
  int64_t rows = 0;
  Fp8Scales scales = Fp8Scales::tensor;
  int64_t interleaved_head = 0;
  float activation_scale = 0.0f;
  // Codes in groups (group_codes.h).
  int32_t bits = 0;
  int64_t group = 0;  // 0: a scale per row
  DType scale_type = DType::bf16;
  bool has_zero = false;  // zero points, or the other direction of NVFP4's scale of the matrix
};
struct SequenceCase {
  int32_t id = 0;          // names the random values of its tokens
  int32_t num_tokens = 0;  // in the cache
  int32_t num_rows = 0;    // of the step
};
struct OpCase {
  Op op{};
  int64_t tokens = 1;
  int64_t columns = 0;          // of the input
  std::vector<PartCase> parts = {};  // matmul, embed
  bool accumulate = false;
  Activation activation = Activation::silu;
  int32_t num_heads = 0, num_kv_heads = 0, head_dim = 0, sliding_window = 0;
  KvDType kv = KvDType::f32;
  std::vector<SequenceCase> sequences = {};  // attention; attention_full: num_rows of each segment
  int32_t grid_rows = 0, merge = 0;     // unfold_patches
};

std::string op_name(Op op);
std::string case_name(const OpCase& c);
// Every op over its shapes; every format over shapes around the edges of a tile.
std::vector<OpCase> op_cases();
// Plain formats, and FP8 once for each kind of scale.
std::vector<PartCase> every_format(int64_t rows);
std::string part_name(const PartCase& part);

// Weights of any code bytes, with finite scales, and the views on them.
class RandomWeights {
 public:
  RandomWeights(const std::vector<PartCase>& parts, int64_t columns, uint64_t seed);
  const std::vector<WeightView>& views() const { return views_; }
  // Of part `index`, to be spoilt by a test.
  std::vector<std::byte>& codes(size_t index) { return *codes_[index]; }
  // The largest minimum that the blocks of part `index` add (formats with d * q + m), else 0.
  double largest_minimum(size_t index) const { return largest_minimum_[index]; }

 private:
  std::vector<std::byte>& random_bytes(uint64_t count, uint64_t seed, uint64_t stream);
  // A weight whose codes and scales are tensors of their own; the largest minimum is added.
  WeightView grouped(const PartCase& part, int64_t columns, uint64_t seed, uint64_t stream);

  std::vector<std::unique_ptr<std::vector<std::byte>>> parts_;
  std::vector<std::vector<std::byte>*> codes_;
  std::vector<WeightView> views_;
  std::vector<double> largest_minimum_;
};

// A float matrix with guard words on both sides; fresh elements are NaN.
class GuardedMatrix {
 public:
  GuardedMatrix(int64_t rows = 0, int64_t columns = 0);
  MatrixView view() { return {memory_.data() + kGuard, rows_, columns_}; }
  std::span<float> values() { return std::span(memory_).subspan(kGuard, memory_.size() - 2 * kGuard); }
  std::span<const float> values() const { return std::span(memory_).subspan(kGuard, memory_.size() - 2 * kGuard); }
  bool guards_hold() const;
  // All of it, guard words too, in memory of a backend; and back from there.
  Buffer copy_to(Backend& backend) const;
  void copy_from(Backend& backend, const Buffer& buffer);
  MatrixView view_in(const Buffer& buffer) const {
    return {static_cast<float*>(buffer.data()) + kGuard, rows_, columns_};
  }

 private:
  static constexpr size_t kGuard = 64;
  int64_t rows_, columns_;
  std::vector<float> memory_;
};

// x in 8 bits and back, by plain loops: what the integer kernels see.
std::vector<float> quantized_and_back(std::span<const float> x);
// x rounded to the e4m3 codes of `scale` and back.
std::vector<float> e4m3_and_back(std::span<const float> x, float scale);

// A case with its inputs in the memory of one backend.
class OpRun {
 public:
  // Tokens [first_token, first_token + num_tokens) of the case's; the row-wise ops and matmul only.
  OpRun(Backend& backend, const OpCase& c, uint64_t seed, int64_t first_token = 0, int64_t num_tokens = -1);

  void run();
  std::span<const float> output() const { return out_.values(); }
  std::span<float> input() { return x_.values(); }
  MatrixView input_view() { return x_.view(); }
  const Weight& weight() const { return weight_; }
  const std::vector<std::byte>& keys() const { return keys_; }
  const std::vector<std::byte>& values() const { return values_; }
  bool guards_hold() const;
  // Precision::fast multiplies the weight's codes with 8-bit inputs.
  bool has_integer_products() const;
  // For each output: how far a right result may lie from this backend's, which computes in double
  // and rounds once. Integer formats at Precision::fast: half a step of the 8-bit inputs is added,
  // unless `exact_inputs` says that the inputs went through quantized_and_back() before.
  // `narrow_attention`: queries and weights of values are rounded to BF16, with keys and values in INT8 to 8 bits.
  std::vector<double> error_bounds(Precision precision, bool exact_inputs = false, bool narrow_attention = false);

 private:
  void make_attention(uint64_t seed);
  std::vector<double> matmul_bounds(Precision precision, bool exact_inputs);
  std::vector<double> activation_bounds();

  Backend& backend_;
  OpCase case_;
  std::unique_ptr<RandomWeights> weights_;
  Weight weight_;
  Buffer vector_;                  // norm weight, bias
  std::vector<float> host_vector_;
  GuardedMatrix x_, out_, cosine_, sine_;
  std::vector<float> row_scale_;
  std::vector<float> initial_;     // of the output of an op that reads it
  std::vector<int32_t> rows_;      // ids, rows
  Buffer key_memory_, value_memory_;
  std::vector<std::byte> keys_, values_;  // what stands there
  KvLayerView kv_;
  std::vector<std::vector<int32_t>> block_tables_;
  std::vector<SequenceSpan> spans_;
  std::vector<int32_t> segments_;
};

}  // namespace bise::test
