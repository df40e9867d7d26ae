// Reads a checkpoint's description of its quantisation and says, for a matrix, which format its
// tensors make and which of them are its parts.
#pragma once

#include <functional>
#include <string>

#include "base/error.h"
#include "tensor/tensor_view.h"
#include "tensor/weight_view.h"

namespace bise {

struct QuantScheme {
  bool static_activations = false;            // FP8 inputs are divided by a stored scale
  int64_t block_rows = 0, block_columns = 0;  // FP8 with a scale per block; 0: not by block
  std::string method;                         // as the file says it; empty: none
};

// quantization_config of config.json. A method that is not read here is an Error that names it.
Result<QuantScheme> read_hf_quantization(const std::string& config_json);
// `quantization` of params.json.
Result<QuantScheme> read_mistral_quantization(const std::string& params_json);

using FindTensor = std::function<const TensorView*(const std::string&)>;

// The matrix stored as `name` ("….weight") with its parts, found by any published spelling. What
// the tensors are decides, not the lists of exceptions in the config, which writers get wrong.
Result<WeightView> assemble_weight(const std::string& name, const QuantScheme& scheme,
                                   const FindTensor& find);

}  // namespace bise
