#include "app/model_formats.h"

#include <algorithm>
#include <cmath>

#include "tensor/random_weight.h"

namespace bise {
namespace {

using Tensors = std::vector<RandomTensor>;

RandomTensor weights(const std::string& name, FormatId format, std::vector<int64_t> shape) {
  return {.name = name, .shape = std::move(shape), .content = RandomContent::weights, .format = format};
}
RandomTensor constant(const std::string& name, DType dtype, std::vector<int64_t> shape, double value) {
  return {.name = name, .shape = std::move(shape), .content = RandomContent::constant, .dtype = dtype, .value = value};
}
RandomTensor codes(const std::string& name, DType dtype, std::vector<int64_t> shape) {
  return {.name = name, .shape = std::move(shape), .content = RandomContent::codes, .dtype = dtype};
}
RandomTensor scales(const std::string& name, DType dtype, std::vector<int64_t> shape, double size) {
  return {.name = name, .shape = std::move(shape), .content = RandomContent::scales, .dtype = dtype, .value = size};
}

Tensors one_tensor(const ModelFormat& f, const RandomMatrix& m, Layout) {
  return {weights(m.stem + "weight", f.weights, {m.rows, m.columns})};
}
Tensors in_bf16(const RandomMatrix& m) {
  return {weights(m.stem + "weight", FormatId::bf16, {m.rows, m.columns})};
}

// --- FP8: E4M3 with one scale per tensor and static activation scales, as Mistral publishes it: the
// embedding and the head stay in BF16.

Tensors fp8_tensors(const ModelFormat& f, const RandomMatrix& m, Layout layout) {
  if (!m.in_body) return in_bf16(m);
  constexpr double kActivationScale = 0.02;  // inputs to about 9
  const bool hf = layout == Layout::hf;
  return {weights(m.stem + "weight", f.weights, {m.rows, m.columns}),
          constant(m.stem + (hf ? "weight_scale_inv" : "qscale_weight"), DType::f32, {}, random_fp8_scale(kRandomDeviation)),
          constant(m.stem + (hf ? "activation_scale" : "qscale_act"), DType::f32, {}, kActivationScale)};
}
void describe_fp8(const ModelFormat&, Json& config, Layout layout) {
  if (layout == Layout::hf) {
    config["quantization_config"] = {{"quant_method", "fp8"},
                                     {"activation_scheme", "static"},
                                     {"weight_block_size", nullptr},
                                     {"modules_to_not_convert", {"lm_head"}}};
  } else {
    config["quantization"] = {{"qformat_weight", "fp8_e4m3"}, {"qscheme_act", "TENSOR"}};
  }
}

// --- Unsigned codes of `bits` bits, all equally often.

// The root mean square of codes less 2^(bits - 1), and of codes about their mean.
double size_about_offset(int32_t bits) { return std::sqrt((std::exp2(2 * bits) - 1) / 12 + 0.25); }
double size_about_mean(int32_t bits) { return std::sqrt((std::exp2(2 * bits) - 1) / 12); }

// compressed-tensors, pack-quantized, symmetric.
Tensors packed_tensors(const ModelFormat& f, const RandomMatrix& m, Layout) {
  if (!m.in_body) return in_bf16(m);
  RandomTensor shape{.name = m.stem + "weight_shape", .shape = {2}, .content = RandomContent::sizes,
                     .dtype = DType::i64, .value = static_cast<double>(m.rows), .second = static_cast<double>(m.columns)};
  return {codes(m.stem + "weight_packed", DType::i32, {m.rows, m.columns * f.bits / 32}),
          scales(m.stem + "weight_scale", DType::bf16, {m.rows, m.columns / f.group}, kRandomDeviation / size_about_offset(f.bits)),
          shape};
}
Json group_config(const ModelFormat& f, const char* type, const char* strategy) {
  return {{"targets", {"Linear"}},
          {"input_activations", nullptr},
          {"output_activations", nullptr},
          {"weights",
           {{"num_bits", f.bits},
            {"type", type},
            {"symmetric", true},
            {"strategy", strategy},
            {"group_size", f.group},
            {"dynamic", false}}}};
}
void describe_compressed(Json& config, Layout layout, const char* format, Json group) {
  config[layout == Layout::hf ? "quantization_config" : "quantization"] = {
      {"quant_method", "compressed-tensors"}, {"format", format},
      {"quantization_status", "compressed"},  {"ignore", {"lm_head"}},
      {"config_groups", {{"group_0", std::move(group)}}}, {"kv_cache_scheme", nullptr}};
}
void describe_packed(const ModelFormat& f, Json& config, Layout layout) {
  describe_compressed(config, layout, "pack-quantized", group_config(f, "int", "group"));
}

// GPTQ (version 1: zero points are stored one too low) and AWQ: transposed, zero points packed too.
Tensors gptq_tensors(const ModelFormat& f, const RandomMatrix& m, Layout) {
  if (!m.in_body) return in_bf16(m);
  const int64_t groups = m.columns / f.group, words = m.rows * f.bits / 32;
  const double scale = kRandomDeviation / size_about_offset(f.bits);
  RandomTensor index{.name = m.stem + "g_idx", .shape = {m.columns}, .content = RandomContent::group_index,
                     .dtype = DType::i32, .value = static_cast<double>(f.group)};
  return {codes(m.stem + "qweight", DType::i32, {m.columns * f.bits / 32, m.rows}),
          constant(m.stem + "qzeros", DType::i32, {groups, words}, 0x77777777),
          scales(m.stem + "scales", DType::f16, {groups, m.rows}, scale), index};
}
void describe_gptq(const ModelFormat& f, Json& config, Layout) {
  config["quantization_config"] = {{"quant_method", "gptq"}, {"bits", f.bits}, {"group_size", f.group},
                                   {"sym", true}, {"desc_act", false}, {"lm_head", false}};
}
Tensors awq_tensors(const ModelFormat& f, const RandomMatrix& m, Layout) {
  if (!m.in_body) return in_bf16(m);
  const int64_t groups = m.columns / f.group, words = m.rows * f.bits / 32;
  return {codes(m.stem + "qweight", DType::i32, {m.columns, words}),
          constant(m.stem + "qzeros", DType::i32, {groups, words}, 0x88888888),
          scales(m.stem + "scales", DType::f16, {groups, m.rows}, kRandomDeviation / size_about_offset(f.bits))};
}
void describe_awq(const ModelFormat& f, Json& config, Layout) {
  config["quantization_config"] = {{"quant_method", "awq"}, {"version", "gemm"}, {"bits", f.bits},
                                   {"group_size", f.group}, {"zero_point", true},
                                   {"modules_to_not_convert", {"lm_head"}}};
}

// MLX affine: a scale and a bias, embedding and head like all others.
Tensors mlx_tensors(const ModelFormat& f, const RandomMatrix& m, Layout) {
  const std::vector<int64_t> groups = {m.rows, m.columns / f.group};
  const double size = kRandomDeviation / size_about_mean(f.bits);
  RandomTensor biases = scales(m.stem + "biases", DType::bf16, groups, size);
  biases.factor = -(std::exp2(f.bits) - 1) / 2;
  biases.follows = 1;
  return {codes(m.stem + "weight", DType::u32, {m.rows, m.columns * f.bits / 32}),
          scales(m.stem + "scales", DType::bf16, groups, size), biases};
}
void describe_mlx(const ModelFormat& f, Json& config, Layout) {
  const Json quantization = {{"group_size", f.group}, {"bits", f.bits}, {"mode", "affine"}};
  config["quantization"] = quantization;
  config["quantization_config"] = quantization;
}

// --- Small floats with scales of groups, as compressed-tensors stores them.

constexpr double kE2m1Size = 2.926;  // of E2M1 codes, all equally often

Tensors nvfp4_tensors(const ModelFormat& f, const RandomMatrix& m, Layout) {
  if (!m.in_body) return in_bf16(m);
  constexpr double kScale = 64;  // E4M3 scales from 48 to 80
  return {codes(m.stem + "weight_packed", DType::u8, {m.rows, m.columns / 2}),
          scales(m.stem + "weight_scale", DType::f8_e4m3, {m.rows, m.columns / f.group}, kScale),
          constant(m.stem + "weight_global_scale", DType::f32, {1}, kScale * kE2m1Size / kRandomDeviation)};
}
void describe_nvfp4(const ModelFormat& f, Json& config, Layout layout) {
  describe_compressed(config, layout, "nvfp4-pack-quantized", group_config(f, "float", "tensor_group"));
}
Tensors mxfp4_tensors(const ModelFormat& f, const RandomMatrix& m, Layout) {
  if (!m.in_body) return in_bf16(m);
  return {codes(m.stem + "weight_packed", DType::u8, {m.rows, m.columns / 2}),
          scales(m.stem + "weight_scale", DType::u8, {m.rows, m.columns / f.group}, kRandomDeviation / kE2m1Size)};
}
void describe_mxfp4(const ModelFormat& f, Json& config, Layout layout) {
  describe_compressed(config, layout, "mxfp4-pack-quantized", group_config(f, "float", "group"));
}
Tensors mxfp8_tensors(const ModelFormat& f, const RandomMatrix& m, Layout) {
  if (!m.in_body) return in_bf16(m);
  return {weights(m.stem + "weight", FormatId::fp8_e4m3, {m.rows, m.columns}),
          scales(m.stem + "weight_scale", DType::f8_e8m0, {m.rows, m.columns / f.group}, random_fp8_scale(kRandomDeviation))};
}
void describe_mxfp8(const ModelFormat& f, Json& config, Layout layout) {
  describe_compressed(config, layout, "mxfp8-quantized", group_config(f, "float", "group"));
}

std::vector<ModelFormat> make_formats() {
  const std::string bf16 = "bfloat16";
  const std::vector<Layout> any = {Layout::hf, Layout::mistral, Layout::gguf};
  const std::vector<Layout> folders = {Layout::hf, Layout::mistral}, hf = {Layout::hf};
  std::vector<ModelFormat> formats = {
      {"BF16", bf16, any, FormatId::bf16, 16, 1, one_tensor, nullptr},
      {"F16", "float16", any, FormatId::f16, 16, 1, one_tensor, nullptr},
      {"F32", "float32", any, FormatId::f32, 32, 1, one_tensor, nullptr},
      {"FP8", bf16, folders, FormatId::fp8_e4m3, 8, 1, fp8_tensors, describe_fp8},
      {"W4A16", bf16, folders, FormatId::int_packed, 4, 128, packed_tensors, describe_packed},
      {"W8A16", bf16, folders, FormatId::int_packed, 8, 128, packed_tensors, describe_packed},
      {"NVFP4", bf16, folders, FormatId::nvfp4, 4, 16, nvfp4_tensors, describe_nvfp4},
      {"MXFP4", bf16, folders, FormatId::mxfp4, 4, 32, mxfp4_tensors, describe_mxfp4},
      {"MXFP8", bf16, folders, FormatId::mxfp8, 8, 32, mxfp8_tensors, describe_mxfp8},
      {"GPTQ-4bit", "float16", hf, FormatId::gptq, 4, 128, gptq_tensors, describe_gptq},
      {"AWQ-4bit", "float16", hf, FormatId::awq, 4, 128, awq_tensors, describe_awq},
  };
  for (int32_t bits : {2, 3, 4, 5, 6, 8}) {
    formats.push_back({"MLX-" + std::to_string(bits) + "bit", bf16, hf, FormatId::mlx_affine, bits, 64, mlx_tensors, describe_mlx});
  }
  // All block types of GGUF, by the registry.
  for (const WeightFormat& format : weight_formats()) {
    if (format.ggml_type < 0 || format.block_elements == 1) continue;
    formats.push_back({std::string(format.name), "", {Layout::gguf}, format.id, 0, format.block_elements, one_tensor, nullptr});
  }
  return formats;
}

bool can_hold(const ModelFormat& format, Layout layout) {
  return std::find(format.layouts.begin(), format.layouts.end(), layout) != format.layouts.end();
}

}  // namespace

const std::vector<ModelFormat>& model_formats() {
  static const std::vector<ModelFormat> formats = make_formats();
  return formats;
}

std::vector<std::string> model_format_names() {
  std::vector<std::string> names;
  for (const ModelFormat& format : model_formats()) {
    if (std::find(names.begin(), names.end(), format.name) == names.end()) names.push_back(format.name);
  }
  return names;
}

Result<const ModelFormat*> find_model_format(const std::string& name, Layout layout) {
  std::string names, layouts;
  for (const ModelFormat& format : model_formats()) {
    if (format.name == name && can_hold(format, layout)) return &format;
    if (format.name == name) {
      for (Layout other : format.layouts) layouts += (layouts.empty() ? "" : " or ") + std::string(layout_name(other));
    }
  }
  for (const std::string& known : model_format_names()) names += (names.empty() ? "" : ", ") + known;
  if (layouts.empty()) {
    return Error(ErrorCode::invalid_argument, "--format: found \"" + name + "\", expected one of " + names);
  }
  return Error(ErrorCode::invalid_argument, "--format " + name + " cannot be written in the layout " +
                                                layout_name(layout) + "; expected " + layouts);
}

}  // namespace bise
