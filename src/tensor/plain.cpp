// F32, F16, BF16: little-endian elements, nothing else.
#include "base/float_types.h"
#include "tensor/decoders.h"

namespace bise {

void decode_f32(const WeightView& w, int64_t row, int64_t first, std::span<float> out) {
  const uint8_t* p = row_bytes(w, weight_format(FormatId::f32), row, first);
  std::memcpy(out.data(), p, out.size() * sizeof(float));
}
void decode_f16(const WeightView& w, int64_t row, int64_t first, std::span<float> out) {
  const uint8_t* p = row_bytes(w, weight_format(FormatId::f16), row, first);
  for (size_t i = 0; i < out.size(); ++i) out[i] = f16_to_f32(load_le<uint16_t>(p + 2 * i));
}
void decode_bf16(const WeightView& w, int64_t row, int64_t first, std::span<float> out) {
  const uint8_t* p = row_bytes(w, weight_format(FormatId::bf16), row, first);
  for (size_t i = 0; i < out.size(); ++i) out[i] = bf16_to_f32(load_le<uint16_t>(p + 2 * i));
}

}  // namespace bise
