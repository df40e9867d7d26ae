// The reference decoders that the registry joins. Each decodes elements [first, first + out.size())
// of one row; both are multiples of the format's block. Also the
// byte access that packing needs.
#pragma once

#include <span>

#include "base/float_types.h"
#include "tensor/weight_format.h"

namespace bise {

void decode_f32(const WeightView& w, int64_t row, int64_t first, std::span<float> out);
void decode_f16(const WeightView& w, int64_t row, int64_t first, std::span<float> out);
void decode_bf16(const WeightView& w, int64_t row, int64_t first, std::span<float> out);
void decode_fp8_e4m3(const WeightView& w, int64_t row, int64_t first, std::span<float> out);

void decode_q4_0(const WeightView& w, int64_t row, int64_t first, std::span<float> out);
void decode_q4_1(const WeightView& w, int64_t row, int64_t first, std::span<float> out);
void decode_q5_0(const WeightView& w, int64_t row, int64_t first, std::span<float> out);
void decode_q5_1(const WeightView& w, int64_t row, int64_t first, std::span<float> out);
void decode_q8_0(const WeightView& w, int64_t row, int64_t first, std::span<float> out);
void decode_iq4_nl(const WeightView& w, int64_t row, int64_t first, std::span<float> out);
void decode_mxfp4_gguf(const WeightView& w, int64_t row, int64_t first, std::span<float> out);

void decode_q2_k(const WeightView& w, int64_t row, int64_t first, std::span<float> out);
void decode_q3_k(const WeightView& w, int64_t row, int64_t first, std::span<float> out);
void decode_q4_k(const WeightView& w, int64_t row, int64_t first, std::span<float> out);
void decode_q5_k(const WeightView& w, int64_t row, int64_t first, std::span<float> out);
void decode_q6_k(const WeightView& w, int64_t row, int64_t first, std::span<float> out);
void decode_iq4_xs(const WeightView& w, int64_t row, int64_t first, std::span<float> out);

// The factor of an FP8 weight at (row, column), row in half-split order.
float fp8_scale(const WeightView& w, int64_t row, int64_t column);

// The bytes of `row` (in half-split order) from the block that holds element `first` on.
inline const uint8_t* row_bytes(const WeightView& w, const WeightFormat& f, int64_t row,
                                int64_t first) {
  int64_t per_row = w.columns / f.block_elements * f.block_bytes;
  return reinterpret_cast<const uint8_t*>(w.codes.data()) + w.stored_row(row) * per_row +
         first / f.block_elements * f.block_bytes;
}

// The 16 levels of IQ4_NL and IQ4_XS.
inline constexpr int8_t kIq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                    1,    13,   25,  38,  53,  69,  89,  113};

inline float f16_at(const uint8_t* p) { return f16_to_f32(load_le<uint16_t>(p)); }

// Calls block(bytes, outputs) for each block of the range.
template <class Block>
void each_block(const WeightView& w, FormatId id, int64_t row, int64_t first, std::span<float> out,
                Block block) {
  const WeightFormat& format = weight_format(id);
  const uint8_t* p = row_bytes(w, format, row, first);
  const size_t elements = static_cast<size_t>(format.block_elements);
  for (size_t i = 0; i < out.size(); i += elements, p += format.block_bytes) block(p, &out[i]);
}

}  // namespace bise
