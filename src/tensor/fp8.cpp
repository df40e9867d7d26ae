// FP8 E4M3 codes times a scale: one per tensor, per row, or per block of rows and columns. The
// product is taken in float32; with a BF16 scale it is exact.
#include <array>

#include "base/float_types.h"
#include "tensor/decoders.h"

namespace bise {
namespace {

constexpr std::array<float, 256> kE4m3 = [] {
  std::array<float, 256> table{};
  for (size_t i = 0; i < 256; ++i) table[i] = e4m3_to_f32(static_cast<uint8_t>(i));
  return table;
}();

float scale_value(const TensorView& scale, int64_t index) {
  const std::byte* p = scale.bytes.data();
  switch (scale.dtype) {
    case DType::bf16: return bf16_to_f32(load_le<uint16_t>(p + 2 * index));
    case DType::f16: return f16_to_f32(load_le<uint16_t>(p + 2 * index));
    default: return load_le<float>(p + 4 * index);
  }
}

}  // namespace

float fp8_scale(const WeightView& w, int64_t row, int64_t column) {
  if (w.scale_block_rows != 0) {
    int64_t per_row = (w.columns + w.scale_block_columns - 1) / w.scale_block_columns;
    return scale_value(
        w.scale, w.stored_row(row) / w.scale_block_rows * per_row + column / w.scale_block_columns);
  }
  if (w.scale.num_elements() == 1) return scale_value(w.scale, 0);
  return scale_value(w.scale, w.stored_row(row));
}

void decode_fp8_e4m3(const WeightView& w, int64_t row, int64_t first, std::span<float> out) {
  const uint8_t* p = row_bytes(w, weight_format(FormatId::fp8_e4m3), row, first);
  const int64_t run = w.scale_block_columns == 0 ? w.columns : w.scale_block_columns;
  float scale = 0.0f;
  int64_t scale_end = first;  // the scale holds up to this column
  for (size_t i = 0; i < out.size(); ++i) {
    int64_t column = first + static_cast<int64_t>(i);
    if (column >= scale_end) {
      scale = fp8_scale(w, row, column);
      scale_end = (column / run + 1) * run;
    }
    out[i] = kE4m3[p[i]] * scale;
  }
}

}  // namespace bise
