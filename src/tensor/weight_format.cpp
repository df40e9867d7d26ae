#include "tensor/weight_format.h"

#include <array>

#include "tensor/decoders.h"

namespace bise {
namespace {

constexpr std::array kFormats = {
    WeightFormat{FormatId::f32, "F32", 0, 1, 4, decode_f32},
    WeightFormat{FormatId::f16, "F16", 1, 1, 2, decode_f16},
    WeightFormat{FormatId::bf16, "BF16", 30, 1, 2, decode_bf16},
    WeightFormat{FormatId::fp8_e4m3, "FP8", -1, 1, 1, decode_fp8_e4m3},
    WeightFormat{FormatId::q4_0, "Q4_0", 2, 32, 18, decode_q4_0},
    WeightFormat{FormatId::q4_1, "Q4_1", 3, 32, 20, decode_q4_1},
    WeightFormat{FormatId::q5_0, "Q5_0", 6, 32, 22, decode_q5_0},
    WeightFormat{FormatId::q5_1, "Q5_1", 7, 32, 24, decode_q5_1},
    WeightFormat{FormatId::q8_0, "Q8_0", 8, 32, 34, decode_q8_0},
    WeightFormat{FormatId::q2_k, "Q2_K", 10, 256, 84, decode_q2_k},
    WeightFormat{FormatId::q3_k, "Q3_K", 11, 256, 110, decode_q3_k},
    WeightFormat{FormatId::q4_k, "Q4_K", 12, 256, 144, decode_q4_k},
    WeightFormat{FormatId::q5_k, "Q5_K", 13, 256, 176, decode_q5_k},
    WeightFormat{FormatId::q6_k, "Q6_K", 14, 256, 210, decode_q6_k},
    WeightFormat{FormatId::iq4_nl, "IQ4_NL", 20, 32, 18, decode_iq4_nl},
    WeightFormat{FormatId::iq4_xs, "IQ4_XS", 23, 256, 136, decode_iq4_xs},
    WeightFormat{FormatId::mxfp4_gguf, "MXFP4", 39, 32, 17, decode_mxfp4_gguf},
    WeightFormat{FormatId::nvfp4_gguf, "NVFP4", 40, 64, 36, decode_float_groups},
    WeightFormat{FormatId::int_packed, "INT", -1, 1, 0, decode_integer_groups},
    WeightFormat{FormatId::int8_plain, "INT", -1, 1, 0, decode_integer_groups},
    WeightFormat{FormatId::gptq, "GPTQ INT", -1, 1, 0, decode_integer_groups},
    WeightFormat{FormatId::awq, "AWQ INT", -1, 1, 0, decode_integer_groups},
    WeightFormat{FormatId::mlx_affine, "MLX", -1, 1, 0, decode_integer_groups},
    WeightFormat{FormatId::nvfp4, "NVFP4", -1, 1, 0, decode_float_groups},
    WeightFormat{FormatId::mxfp4, "MXFP4", -1, 1, 0, decode_float_groups},
    WeightFormat{FormatId::mxfp8, "MXFP8", -1, 1, 0, decode_float_groups},
};

}  // namespace

std::span<const WeightFormat> weight_formats() { return kFormats; }

const WeightFormat& weight_format(FormatId id) {
  const WeightFormat& format = kFormats[static_cast<size_t>(id)];
  DCHECK(format.id == id);
  return format;
}

const WeightFormat* weight_format_of_ggml(int ggml_type) {
  for (const WeightFormat& format : kFormats) {
    if (format.ggml_type == ggml_type && ggml_type >= 0) return &format;
  }
  return nullptr;
}

Result<uint64_t> weight_row_bytes(const WeightFormat& format, int64_t columns) {
  if (columns < 0 || columns % format.block_elements != 0) {
    return Error(ErrorCode::corrupt,
                 "rows of " + std::to_string(columns) + " elements do not divide into blocks of " +
                     std::to_string(format.block_elements) + " (" + std::string(format.name) + ")");
  }
  uint64_t bytes = 0;
  if (!checked_mul(static_cast<uint64_t>(columns / format.block_elements),
                   static_cast<uint64_t>(format.block_bytes), &bytes)) {
    return Error(ErrorCode::corrupt, "the size of a row overflows");
  }
  return bytes;
}

Result<WeightView> make_weight_view(FormatId id, int64_t rows, int64_t columns, Bytes codes,
                                    const std::string& name) {
  if (rows < 1 || columns < 1) {
    return Error(ErrorCode::corrupt, "tensor " + name + ": found shape " +
                                         shape_text({rows, columns}) +
                                         ", expected a matrix with elements");
  }
  CHECK(weight_format(id).block_bytes != 0);  // such views are made of several tensors
  uint64_t row_size =
      TRY(weight_row_bytes(weight_format(id), columns).with_context("tensor " + name));
  uint64_t bytes = 0;
  if (!checked_mul(static_cast<uint64_t>(rows), row_size, &bytes) || bytes != codes.size()) {
    return Error(ErrorCode::corrupt, "tensor " + name + ": found " + std::to_string(codes.size()) +
                                         " bytes, expected " + std::to_string(bytes) + " for " +
                                         shape_text({rows, columns}) + " in " +
                                         std::string(weight_format(id).name));
  }
  WeightView view;
  view.name = name;
  view.format = id;
  view.rows = rows;
  view.columns = columns;
  view.codes = codes;
  if (id == FormatId::nvfp4_gguf) {
    view.bits = 4;
    view.group = 16;
  }
  return view;
}

std::string describe_format(const WeightView& w) {
  const std::string name(weight_format(w.format).name);
  switch (w.format) {
    case FormatId::int_packed:
    case FormatId::int8_plain:
    case FormatId::gptq:
    case FormatId::awq:
    case FormatId::mlx_affine: break;
    default: return name;
  }
  const std::string bits = std::to_string(w.bits);
  const std::string group = w.group == w.columns ? " per row" : " g" + std::to_string(w.group);
  return name + (w.format == FormatId::mlx_affine ? " " + bits + "-bit" : bits) + group;
}

void decode_row(const WeightView& weight, int64_t row, std::span<float> out) {
  CHECK(static_cast<int64_t>(out.size()) == weight.columns);
  weight_format(weight.format).decode(weight, row, 0, out);
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i != 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + "]";
}

}  // namespace bise
