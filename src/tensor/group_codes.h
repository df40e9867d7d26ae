// Element access to weights whose codes share scales in groups of columns, independent of how the
// file packs them. Rows are in half-split (HF) order, groups count from 0 along the columns.
//
//   ZeroKind::none, point   weight = (u - zero) * scale, u the unsigned code, zero = zero_point()
//   ZeroKind::bias          weight = u * scale + bias
//   E2M1 and E4M3 codes     weight = value of the code * scale
//
// scale = scale_value(): the stored number, already multiplied with or divided by the global scale.
// All of it is float32 arithmetic, rounded after every operation.
#pragma once

#include <cstdint>

#include "tensor/weight_format.h"

namespace bise {

enum class CodeKind : uint8_t { integer, e2m1, e4m3 };
enum class ScaleType : uint8_t { f16, bf16, f32, e8m0, e4m3 };
enum class ZeroKind : uint8_t {
  none,   // symmetric: zero_point() is 2^(bits - 1) everywhere
  point,  // an integer per row and group
  bias,   // a float per row and group (MLX)
};

// Whether this header serves the format; everything below is for such weights only.
bool has_group_codes(FormatId format);

CodeKind code_kind(const WeightView& w);
// Codes of `row`, columns [first, first + count), one per byte: unsigned integers (0 to 2^bits - 1,
// signed bytes shifted by 128), E2M1 nibbles, E4M3 bytes.
void read_codes(const WeightView& w, int64_t row, int64_t first, int64_t count, uint8_t* out);

int64_t num_groups(const WeightView& w);
// The group of a column: by the group index where there is one, else column / group.
int64_t group_of(const WeightView& w, int64_t column);

ScaleType scale_type(const WeightView& w);
uint32_t scale_bits(const WeightView& w, int64_t row, int64_t group);  // as stored, low bits
float scale_value(const WeightView& w, int64_t row, int64_t group);

ZeroKind zero_kind(const WeightView& w);
// The code that means zero: in 0 to 2^bits - 1 for checked weights.
int32_t zero_point(const WeightView& w, int64_t row, int64_t group);
// The same of every symmetric code: 2^(bits - 1).
inline int32_t code_offset(const WeightView& w) { return int32_t{1} << (w.bits - 1); }
// Biases have the type of the scales.
uint32_t bias_bits(const WeightView& w, int64_t row, int64_t group);
float bias_value(const WeightView& w, int64_t row, int64_t group);

// The elements of `part` (scales, or biases) that belong to one row, as stored: that of group 0, and the bytes
// from one group to the next. Not for GGUF, whose scales stand in its blocks.
struct GroupPart {
  const uint8_t* first = nullptr;
  int64_t step = 0;
};
GroupPart group_part(const WeightView& w, const TensorView& part, int64_t row);

// What no weight may hold; reads every scale, zero point and bias. Errors (corrupt): a scale or
// bias that is not finite, a zero point that is no code, a group index outside the groups.
Result<void> check_group_parts(const WeightView& w);
// Error (corrupt): an FP8 code of this row is not a number. Weights without FP8 codes have none.
Result<void> check_codes(const WeightView& w, int64_t row);

}  // namespace bise
