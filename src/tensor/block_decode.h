// What the decoders of GGUF's blocks share.
#pragma once

#include <span>

#include "base/float_types.h"
#include "tensor/decoders.h"

namespace bise {

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
