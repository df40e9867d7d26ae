// WeightFormat: what the bytes of a weight matrix mean. One row per format, and the one registry.
// A format knows its block (how many elements of a row share one run of bytes), the bytes of a row,
// and the reference decode. Every fast kernel is held to this decode.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "tensor/weight_view.h"

namespace bise {

enum class FormatId : uint8_t {
  f32,
  f16,
  bf16,
  fp8_e4m3,  // one code per weight, times a scale (per tensor, row, or block)
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  iq4_nl,
  iq4_xs,
  mxfp4_gguf,
  nvfp4_gguf,
  // Codes and scales in tensors of their own; group_codes.h reads them.
  int_packed,  // compressed-tensors pack-quantized: 1 to 8 bits in words, along the columns
  int8_plain,  // compressed-tensors int-quantized: signed bytes
  gptq,        // words along the columns, transposed
  awq,         // words along the rows, transposed, in AWQ's order
  mlx_affine,  // unsigned codes, a scale and a bias
  nvfp4,       // E2M1, E4M3 scales of 16 columns, one scale of the matrix
  mxfp4,       // E2M1, E8M0 scales of 32 columns
  mxfp8,       // E4M3, E8M0 scales of 32 columns
};

struct WeightFormat {
  FormatId id;
  std::string_view name;   // for people and JSON: "BF16", "FP8", "Q4_1", "Q4_K"
  int ggml_type;           // number in GGUF files, or -1
  int32_t block_elements;  // columns must be a multiple of this
  int32_t block_bytes;     // bytes of one block of `codes`; 0: rows are not runs of bytes
  // Decodes elements [first, first + out.size()) of row `row` to float32 exactly as the reference
  // tool does. `first` and the count are multiples of block_elements.
  void (*decode)(const WeightView& weight, int64_t row, int64_t first, std::span<float> out);
};

// All formats, in the order of FormatId.
std::span<const WeightFormat> weight_formats();
const WeightFormat& weight_format(FormatId id);
// nullptr when we do not know the type.
const WeightFormat* weight_format_of_ggml(int ggml_type);
// Bytes of one row of `columns` elements; Error when columns is not a multiple of the block.
Result<uint64_t> weight_row_bytes(const WeightFormat& format, int64_t columns);
// A view on raw row-major codes, with sizes checked against the format.
Result<WeightView> make_weight_view(FormatId id, int64_t rows, int64_t columns, Bytes codes,
                                    const std::string& name);
// "BF16", "Q4_K", "INT4 g128", "GPTQ INT4 g128", "MLX 4-bit g64", "INT8 per row", "NVFP4".
std::string describe_format(const WeightView& weight);
// Decodes one whole row. out.size() == columns.
void decode_row(const WeightView& weight, int64_t row, std::span<float> out);

}  // namespace bise
