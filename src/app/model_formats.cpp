#include "app/model_formats.h"

#include <algorithm>

#include "tensor/random_weight.h"

namespace bise {
namespace {

RandomTensor weight_tensor(const RandomMatrix& m, FormatId format) {
  return {m.stem + "weight", format, {m.rows, m.columns}, true, 0.0f};
}
RandomTensor scalar(const std::string& name, float value) {
  return {name, FormatId::f32, {}, false, value};
}

std::vector<RandomTensor> one_tensor(const ModelFormat& f, const RandomMatrix& m, Layout) {
  return {weight_tensor(m, f.weights)};
}

// E4M3 with one scale per tensor and static activation scales, as Mistral publishes it: the
// embedding and the head stay in BF16.
std::vector<RandomTensor> fp8_tensors(const ModelFormat& f, const RandomMatrix& m, Layout layout) {
  if (!m.in_body) return {weight_tensor(m, FormatId::bf16)};
  constexpr float kActivationScale = 0.02f;  // inputs to about 9
  const bool hf = layout == Layout::hf;
  return {weight_tensor(m, f.weights),
          scalar(m.stem + (hf ? "weight_scale_inv" : "qscale_weight"), random_fp8_scale(kRandomDeviation)),
          scalar(m.stem + (hf ? "activation_scale" : "qscale_act"), kActivationScale)};
}
void describe_fp8(Json& config, Layout layout) {
  if (layout == Layout::hf) {
    config["quantization_config"] = {{"quant_method", "fp8"},
                                     {"activation_scheme", "static"},
                                     {"weight_block_size", nullptr},
                                     {"modules_to_not_convert", {"lm_head"}}};
  } else {
    config["quantization"] = {{"qformat_weight", "fp8_e4m3"}, {"qscheme_act", "TENSOR"}};
  }
}

std::vector<ModelFormat> make_formats() {
  const std::vector<Layout> any = {Layout::hf, Layout::mistral, Layout::gguf};
  std::vector<ModelFormat> formats = {
      {"BF16", FormatId::bf16, "bfloat16", any, one_tensor, nullptr},
      {"F16", FormatId::f16, "float16", any, one_tensor, nullptr},
      {"F32", FormatId::f32, "float32", any, one_tensor, nullptr},
      {"FP8", FormatId::fp8_e4m3, "bfloat16", {Layout::hf, Layout::mistral}, fp8_tensors, describe_fp8},
  };
  // All block types of GGUF, by the registry.
  for (const WeightFormat& format : weight_formats()) {
    if (format.ggml_type < 0 || format.block_elements == 1) continue;
    formats.push_back({std::string(format.name), format.id, "", {Layout::gguf}, one_tensor, nullptr});
  }
  return formats;
}

}  // namespace

const std::vector<ModelFormat>& model_formats() {
  static const std::vector<ModelFormat> formats = make_formats();
  return formats;
}

Result<const ModelFormat*> find_model_format(const std::string& name) {
  std::string names;
  for (const ModelFormat& format : model_formats()) {
    if (format.name == name) return &format;
    names += (names.empty() ? "" : ", ") + format.name;
  }
  return Error(ErrorCode::invalid_argument, "--format: found \"" + name + "\", expected one of " + names);
}

}  // namespace bise
