#include "io/quant_scheme.h"

#include <cmath>

#include "base/float_types.h"
#include "base/json.h"
#include "io/gguf.h"
#include "io/printable.h"
#include "tensor/weight_format.h"

namespace bise {
namespace {

constexpr JsonLimits kConfigLimits = {.max_bytes = 4 << 20};
constexpr std::string_view kWeight = "weight";

Error unsupported(const std::string& found) {
  return Error(ErrorCode::unsupported,
               found +
                   "; this version reads BF16, F16, F32, FP8 (quant_method fp8, or "
                   "compressed-tensors float-quantized) and GGUF");
}

Error wrong_shape(const TensorView& tensor, const std::string& expected) {
  return Error(ErrorCode::corrupt, "tensor " + tensor.name + ": found shape " +
                                       shape_text(tensor.shape) + ", expected " + expected);
}

Result<void> read_block_size(const Json& blocks, const std::string& place, QuantScheme& scheme) {
  if (!blocks.is_array() || blocks.size() != 2 || !blocks[0].is_number_unsigned() ||
      !blocks[1].is_number_unsigned()) {
    return Error(ErrorCode::corrupt, place + ": expected two numbers");
  }
  uint64_t rows = blocks[0].get<uint64_t>(), columns = blocks[1].get<uint64_t>();
  if (rows == 0 || columns == 0 || rows > 1 << 20 || columns > 1 << 20) {
    return Error(ErrorCode::corrupt, place + ": expected numbers from 1 to 1048576");
  }
  scheme.block_rows = static_cast<int64_t>(rows);
  scheme.block_columns = static_cast<int64_t>(columns);
  return {};
}

Result<void> read_compressed_tensors(const Json& config, const std::string& place,
                                     QuantScheme& scheme) {
  std::string format = TRY(json_string(config, "format", "", place));
  if (format != "float-quantized")
    return unsupported(place + ".format: found " + in_quotes(format));
  const Json* groups = TRY(json_object(config, "config_groups", place));
  if (groups == nullptr) return {};
  for (const auto& [name, group] : groups->items()) {
    std::string where = place + ".config_groups." + in_quotes(name);
    const Json* weights = TRY(json_object(group, "weights", where));
    if (weights == nullptr) continue;
    if (TRY(json_int(*weights, "num_bits", 8, where)) != 8 ||
        TRY(json_string(*weights, "type", "float", where)) != "float") {
      return unsupported(where + ".weights: found another type than 8-bit float");
    }
    if (json_has(*weights, "block_structure")) {
      TRY(read_block_size((*weights)["block_structure"], where + ".block_structure", scheme));
    }
    const Json* inputs = TRY(json_object(group, "input_activations", where));
    if (inputs == nullptr) continue;
    if (!TRY(json_bool(*inputs, "dynamic", false, where))) scheme.static_activations = true;
  }
  return {};
}

// quantization_config, as config.json and newer params.json files hold it.
Result<QuantScheme> read_config(const Json& config, const std::string& place) {
  QuantScheme scheme;
  scheme.method = TRY(json_string(config, "quant_method", "", place));
  if (scheme.method == "fp8") {
    std::string activations = TRY(json_string(config, "activation_scheme", "dynamic", place));
    if (activations != "static" && activations != "dynamic") {
      return unsupported(place + ".activation_scheme: found " + in_quotes(activations));
    }
    scheme.static_activations = activations == "static";
    if (json_has(config, "weight_block_size")) {
      TRY(read_block_size(config["weight_block_size"], place + ".weight_block_size", scheme));
    }
  } else if (scheme.method == "compressed-tensors") {
    TRY(read_compressed_tensors(config, place, scheme));
  } else if (scheme.method.empty() && json_has(config, "bits")) {
    return unsupported(place + ": found MLX weights (bits, group_size)");
  } else {
    return unsupported(place + ".quant_method: found " + in_quotes(scheme.method));
  }
  return scheme;
}

bool is_float(DType type) {
  return type == DType::bf16 || type == DType::f16 || type == DType::f32;
}

float value_at(const TensorView& t, int64_t index) {
  const std::byte* p = t.bytes.data() + index * dtype_bytes(t.dtype);
  if (t.dtype == DType::bf16) return bf16_to_f32(load_le<uint16_t>(p));
  if (t.dtype == DType::f16) return f16_to_f32(load_le<uint16_t>(p));
  return load_le<float>(p);
}

Result<void> check_scales(const TensorView& t) {
  if (!is_float(t.dtype)) {
    return Error(ErrorCode::unsupported, "tensor " + t.name + ": found dtype " +
                                             std::string(dtype_name(t.dtype)) +
                                             ", expected a scale in BF16, F16 or F32");
  }
  for (int64_t i = 0, count = t.num_elements(); i < count; ++i) {
    float value = value_at(t, i);
    if (std::isfinite(value) && value >= 0.0f) continue;
    return Error(ErrorCode::corrupt, "tensor " + t.name + ": found the scale " +
                                         std::to_string(value) +
                                         ", expected a finite number from 0");
  }
  return {};
}

const TensorView* find_part(const std::string& stem, std::initializer_list<const char*> names,
                            const FindTensor& find) {
  for (const char* name : names) {
    if (const TensorView* tensor = find(stem + name)) return tensor;
  }
  return nullptr;
}

// Hangs the scale on the view: one, one per row, or one per block.
Result<void> attach_scale(const TensorView& scale, const QuantScheme& scheme, WeightView& view) {
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

Result<WeightView> assemble_fp8(const TensorView& tensor, const QuantScheme& scheme,
                                const FindTensor& find) {
  WeightView view = TRY(make_weight_view(FormatId::fp8_e4m3, tensor.shape[0], tensor.shape[1],
                                         tensor.bytes, tensor.name));
  const std::string stem = tensor.name.substr(0, tensor.name.size() - kWeight.size());
  const TensorView* scale =
      find_part(stem, {"weight_scale_inv", "weight_scale", "qscale_weight"}, find);
  if (scale == nullptr) {
    return Error(ErrorCode::corrupt, "tensor " + tensor.name +
                                         ": FP8 codes without a scale; expected " + stem +
                                         "weight_scale_inv, weight_scale or qscale_weight");
  }
  TRY(attach_scale(*scale, scheme, view));
  if (!scheme.static_activations) return view;
  const TensorView* input =
      find_part(stem, {"activation_scale", "input_scale", "qscale_act"}, find);
  if (input == nullptr) {
    return Error(ErrorCode::corrupt,
                 "tensor " + tensor.name +
                     ": its inputs are quantised with a stored scale, but there "
                     "is no " +
                     stem + "activation_scale, input_scale or qscale_act");
  }
  TRY(check_scales(*input));
  if (input->num_elements() != 1) return wrong_shape(*input, "one value");
  view.activation_scale = value_at(*input, 0);
  if (view.activation_scale == 0.0f) {
    return Error(ErrorCode::corrupt,
                 "tensor " + input->name + ": found 0, but inputs are divided by it");
  }
  return view;
}

}  // namespace

Result<QuantScheme> read_hf_quantization(const std::string& config_json) {
  Json top = TRY(parse_json(config_json, kConfigLimits).with_context("config.json"));
  // MLX writes both keys; "quantization" is then the one to go by.
  for (const char* key : {"quantization", "quantization_config"}) {
    const Json* config = TRY(json_object(top, key, "config.json"));
    if (config != nullptr) return read_config(*config, std::string("config.json: ") + key);
  }
  return QuantScheme();
}

Result<QuantScheme> read_mistral_quantization(const std::string& params_json) {
  QuantScheme scheme;
  Json top = TRY(parse_json(params_json, kConfigLimits).with_context("params.json"));
  const Json* config = TRY(json_object(top, "quantization", "params.json"));
  if (config == nullptr) return scheme;
  const std::string place = "params.json: quantization";
  if (json_has(*config, "quant_method")) return read_config(*config, place);
  scheme.method = TRY(json_string(*config, "qformat_weight", "", place));
  if (scheme.method != "fp8_e4m3") {
    return unsupported(place + ".qformat_weight: found " + in_quotes(scheme.method));
  }
  // null means the same as TENSOR.
  std::string activations = TRY(json_string(*config, "qscheme_act", "TENSOR", place));
  if (activations != "TENSOR" && activations != "NO_SCALES") {
    return unsupported(place + ".qscheme_act: found " + in_quotes(activations));
  }
  scheme.static_activations = activations == "TENSOR";
  return scheme;
}

Result<WeightView> assemble_weight(const std::string& name, const QuantScheme& scheme,
                                   const FindTensor& find) {
  const TensorView* tensor = find(name);
  if (tensor == nullptr) {
    std::string stem =
        name.ends_with(kWeight) ? name.substr(0, name.size() - kWeight.size()) : name;
    for (const char* packed : {"weight_packed", "qweight"}) {
      if (find(stem + packed) == nullptr) continue;
      return unsupported("tensor " + name + ": found packed integers in its place (" + packed +
                         ")");
    }
    return Error(ErrorCode::not_found, "tensor " + name + " is missing");
  }
  if (tensor->shape.size() != 2) return wrong_shape(*tensor, "a matrix");
  std::optional<FormatId> id;
  if (tensor->ggml_type >= 0) {
    const WeightFormat* format = weight_format_of_ggml(tensor->ggml_type);
    if (format == nullptr) {
      return Error(ErrorCode::unsupported, "tensor " + name + ": the GGUF type " +
                                               ggml_type_name(tensor->ggml_type) +
                                               " is not read by this version");
    }
    id = format->id;
  } else if (tensor->dtype == DType::f8_e4m3 && name.ends_with(kWeight)) {
    return assemble_fp8(*tensor, scheme, find);
  } else if (tensor->dtype == DType::f32) {
    id = FormatId::f32;
  } else if (tensor->dtype == DType::f16) {
    id = FormatId::f16;
  } else if (tensor->dtype == DType::bf16) {
    id = FormatId::bf16;
  } else {
    return unsupported("tensor " + name + ": found dtype " +
                       std::string(dtype_name(tensor->dtype)));
  }
  return make_weight_view(*id, tensor->shape[0], tensor->shape[1], tensor->bytes, name);
}

}  // namespace bise
