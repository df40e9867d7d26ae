#include "io/quant_scheme.h"

#include <cmath>

#include "base/float_types.h"
#include "io/gguf.h"
#include "io/quant_parts.h"
#include "tensor/weight_format.h"

namespace bise {
namespace {

constexpr std::string_view kWeight = "weight";

Result<void> check_scales(const TensorView& t) {
  if (!is_float_dtype(t.dtype)) {
    return Error(ErrorCode::unsupported, "tensor " + t.name + ": found dtype " +
                                             std::string(dtype_name(t.dtype)) +
                                             ", expected a scale in BF16, F16 or F32");
  }
  for (int64_t i = 0, count = t.num_elements(); i < count; ++i) {
    float value = float_at(t, i);
    if (std::isfinite(value) && value >= 0.0f) continue;
    return Error(ErrorCode::corrupt, "tensor " + t.name + ": found the scale " +
                                         std::to_string(value) +
                                         ", expected a finite number from 0");
  }
  return {};
}

// The entry for an FP8 matrix: its own, else the first whose kind of scales is stored beside it.
const QuantParams* fp8_params(const ModuleTensors& m, const TensorView& scale, bool has_input) {
  auto own = m.scheme.modules.find(module_key(m.stem.substr(0, m.stem.size() - 1)));
  if (own != m.scheme.modules.end()) return &own->second;
  const QuantParams* first = nullptr;
  for (const QuantParams& p : m.scheme.any) {
    if (!p.is_float || p.bits != 8) continue;
    const bool blocks = scale.shape.size() == 2 && scale.shape[1] > 1;
    if (first == nullptr) first = &p;
    if ((p.block_rows != 0) == blocks && p.static_activations == has_input) return &p;
  }
  return first;
}

// Hangs the scale on the view: one, one per row, or one per block.
Result<void> attach_scale(const TensorView& scale, const QuantParams& scheme, WeightView& view) {
  TRY(check_scales(scale));
  const std::vector<int64_t>& shape = scale.shape;
  const bool per_row = !shape.empty() && shape[0] == view.rows && scale.num_elements() == view.rows;
  if (scheme.block_rows != 0 && shape.size() == 2) {
    int64_t rows = (view.rows + scheme.block_rows - 1) / scheme.block_rows;
    int64_t columns = (view.columns + scheme.block_columns - 1) / scheme.block_columns;
    if (shape[0] != rows || shape[1] != columns) {
      return wrong_shape(scale, shape_text({rows, columns}) + " (one scale per block)");
    }
    view.scale_block_rows = scheme.block_rows;
    view.scale_block_columns = scheme.block_columns;
  } else if (scale.num_elements() != 1 && !per_row) {
    return wrong_shape(scale,
                       "one scale or one for each of " + std::to_string(view.rows) + " rows");
  }
  view.scale = scale;
  return {};
}

Result<WeightView> assemble_fp8(const ModuleTensors& m, const TensorView& tensor) {
  const TensorView* scale = m.part({"weight_scale_inv", "weight_scale", "qscale_weight"});
  if (scale == nullptr) {
    return Error(ErrorCode::corrupt, "tensor " + tensor.name +
                                         ": FP8 codes without a scale; expected " + m.stem +
                                         "weight_scale_inv, weight_scale or qscale_weight");
  }
  if (scale->dtype == DType::u8 || scale->dtype == DType::f8_e8m0) {
    return assemble_mxfp8(m, tensor, *scale);
  }
  WeightView view = TRY(make_weight_view(FormatId::fp8_e4m3, tensor.shape[0], tensor.shape[1],
                                         tensor.bytes, tensor.name));
  const TensorView* input = m.part({"activation_scale", "input_scale", "qscale_act"});
  const QuantParams* params = fp8_params(m, *scale, input != nullptr);
  TRY(attach_scale(*scale, params != nullptr ? *params : QuantParams(), view));
  if (params == nullptr || !params->static_activations) return view;
  if (input == nullptr && m.scheme.method == "modelopt") return view;
  if (input == nullptr) {
    return Error(ErrorCode::corrupt,
                 "tensor " + tensor.name +
                     ": its inputs are quantised with a stored scale, but there "
                     "is no " +
                     m.stem + "activation_scale, input_scale or qscale_act");
  }
  TRY(check_scales(*input));
  if (input->num_elements() != 1) return wrong_shape(*input, "one value");
  view.activation_scale = float_at(*input, 0);
  if (view.activation_scale == 0.0f) {
    return Error(ErrorCode::corrupt,
                 "tensor " + input->name + ": found 0, but inputs are divided by it");
  }
  return view;
}

}  // namespace

Error wrong_shape(const TensorView& tensor, const std::string& expected) {
  return Error(ErrorCode::corrupt, "tensor " + tensor.name + ": found shape " +
                                       shape_text(tensor.shape) + ", expected " + expected);
}
Error wrong_dtype(const TensorView& tensor, const std::string& expected) {
  return Error(ErrorCode::unsupported, "tensor " + tensor.name + ": found dtype " +
                                           std::string(dtype_name(tensor.dtype)) + ", expected " +
                                           expected);
}
Error missing_part(const ModuleTensors& m, const std::string& names) {
  return Error(ErrorCode::corrupt, "tensor " + m.name + ": its codes are there, but not " + m.stem +
                                       names + "; is the download complete?");
}

bool is_float_dtype(DType type) {
  return type == DType::bf16 || type == DType::f16 || type == DType::f32;
}

float float_at(const TensorView& t, int64_t index) {
  const std::byte* p = t.bytes.data() + index * dtype_bytes(t.dtype);
  if (t.dtype == DType::bf16) return bf16_to_f32(load_le<uint16_t>(p));
  if (t.dtype == DType::f16) return f16_to_f32(load_le<uint16_t>(p));
  return load_le<float>(p);
}

bool holds_weight(const std::string& name, const FindTensor& find) {
  if (find(name) != nullptr) return true;
  if (!name.ends_with(kWeight)) return false;
  const std::string stem = name.substr(0, name.size() - kWeight.size());
  return find(stem + "weight_packed") != nullptr || find(stem + "qweight") != nullptr;
}

Result<WeightView> assemble_weight(const std::string& name, const QuantScheme& scheme,
                                   const FindTensor& find) {
  const bool is_weight = name.ends_with(kWeight);
  const ModuleTensors m{name, name.substr(0, is_weight ? name.size() - kWeight.size() : 0), scheme,
                        find};
  const TensorView* tensor = find(name);
  if (tensor == nullptr && is_weight) {
    if (const TensorView* packed = m.part({"weight_packed"})) {
      return packed->dtype == DType::u8 ? assemble_fp4(m, *packed)
                                        : assemble_int_packed(m, *packed);
    }
    if (const TensorView* words = m.part({"qweight"})) return assemble_qweight(m, *words);
  }
  if (tensor == nullptr) return Error(ErrorCode::not_found, "tensor " + name + " is missing");
  if (tensor->shape.size() != 2) return wrong_shape(*tensor, "a matrix");
  FormatId id = FormatId::f32;
  if (tensor->ggml_type >= 0) {
    const WeightFormat* format = weight_format_of_ggml(tensor->ggml_type);
    if (format == nullptr) {
      return Error(ErrorCode::unsupported, "tensor " + name + ": the GGUF type " +
                                               ggml_type_name(tensor->ggml_type) +
                                               " is not read by this version");
    }
    WeightView view =
        TRY(make_weight_view(format->id, tensor->shape[0], tensor->shape[1], tensor->bytes, name));
    if (format->id == FormatId::nvfp4_gguf) TRY(attach_gguf_scale(m, view));
    return view;
  }
  // Only something called "….weight" has parts beside it.
  switch (is_weight || is_float_dtype(tensor->dtype) ? tensor->dtype : DType::boolean) {
    case DType::f32: id = FormatId::f32; break;
    case DType::f16: id = FormatId::f16; break;
    case DType::bf16: id = FormatId::bf16; break;
    case DType::f8_e4m3: return assemble_fp8(m, *tensor);
    case DType::u32: return assemble_mlx(m, *tensor);
    case DType::i8: return assemble_int8(m, *tensor);
    case DType::u8: return assemble_fp4(m, *tensor);
    default: return wrong_dtype(*tensor, "a type of weights");
  }
  return make_weight_view(id, tensor->shape[0], tensor->shape[1], tensor->bytes, name);
}

}  // namespace bise
