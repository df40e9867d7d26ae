// What the assembling of quantised matrices shares. Internal to io.
#pragma once

#include <initializer_list>
#include <string>

#include "io/quant_scheme.h"

namespace bise {

// A matrix under assembly: "layers.0.mlp.up_proj.weight" and what stands beside it.
struct ModuleTensors {
  std::string name;  // of the matrix
  std::string stem;  // "layers.0.mlp.up_proj."
  const QuantScheme& scheme;
  const FindTensor& find;

  // The first of the names below the stem that is there, or nullptr.
  const TensorView* part(std::initializer_list<const char*> names) const {
    for (const char* part_name : names) {
      if (const TensorView* tensor = find(stem + part_name)) return tensor;
    }
    return nullptr;
  }
};

Error wrong_shape(const TensorView& tensor, const std::string& expected);
Error wrong_dtype(const TensorView& tensor, const std::string& expected);
Error missing_part(const ModuleTensors& m, const std::string& names);
bool is_float_dtype(DType type);
float float_at(const TensorView& tensor, int64_t index);  // of a float dtype

// compressed-tensors: weight_packed of 32-bit words.
Result<WeightView> assemble_int_packed(const ModuleTensors& m, const TensorView& packed);
// compressed-tensors: weight of signed bytes.
Result<WeightView> assemble_int8(const ModuleTensors& m, const TensorView& codes);
// GPTQ and AWQ: qweight.
Result<WeightView> assemble_qweight(const ModuleTensors& m, const TensorView& words);
// MLX: weight of 32-bit words.
Result<WeightView> assemble_mlx(const ModuleTensors& m, const TensorView& words);
// NVFP4 and MXFP4 of compressed-tensors and ModelOpt: bytes of two codes.
Result<WeightView> assemble_fp4(const ModuleTensors& m, const TensorView& packed);
Result<WeightView> assemble_mxfp8(const ModuleTensors& m, const TensorView& codes,
                                  const TensorView& scale);
// GGUF's NVFP4: the scale of the matrix is a tensor of its own.
Result<void> attach_gguf_scale(const ModuleTensors& m, WeightView& view);

}  // namespace bise
