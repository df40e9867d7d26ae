// The reference decoders that the registry joins. Each decodes elements [first, first + out.size())
// of one row; both are multiples of the format's block. Also the access to bytes and scales that
// packing needs.
#pragma once

#include <span>

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

// The formats of group_codes.h, whatever their packing.
void decode_integer_groups(const WeightView& w, int64_t row, int64_t first, std::span<float> out);
void decode_float_groups(const WeightView& w, int64_t row, int64_t first, std::span<float> out);

// The factor of an FP8 weight at (row, column), row in half-split order.
float fp8_scale(const WeightView& w, int64_t row, int64_t column);

// The bytes of `row` (in half-split order) from the block that holds element `first` on.
inline const uint8_t* row_bytes(const WeightView& w, const WeightFormat& f, int64_t row,
                                int64_t first) {
  int64_t per_row = w.columns / f.block_elements * f.block_bytes;
  return reinterpret_cast<const uint8_t*>(w.codes.data()) + w.stored_row(row) * per_row +
         first / f.block_elements * f.block_bytes;
}

}  // namespace bise
