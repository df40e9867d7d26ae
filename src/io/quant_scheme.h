// Reads a checkpoint's description of its quantisation and says, for a matrix, which format its
// tensors make and which of them are its parts.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "tensor/tensor_view.h"
#include "tensor/weight_view.h"

namespace bise {

constexpr int64_t kWholeRow = -1;  // as a group: one scale per row

// How some modules are quantised, as the config says it.
struct QuantParams {
  std::string place;                // in the config, for messages
  bool is_float = false;            // FP8, FP4; else integers
  int32_t bits = 0;                 // 0: not said
  int64_t group = 0;                // columns that share a scale, or kWholeRow; 0: not said
  std::string mode;                 // MLX: affine, mxfp4, mxfp8, nvfp4
  bool static_activations = false;  // FP8 inputs are divided by a stored scale
  int64_t block_rows = 0, block_columns = 0;  // FP8 with a scale per block; 0: not by block
};

struct QuantScheme {
  std::string method;            // as the file says it, "mlx" for its nameless config; empty: none
  int32_t gptq_zero_offset = 1;  // GPTQ's first version stores zero points less one
  // Of modules without an entry of their own. Several when the config tells them apart by patterns:
  // then the one that fits the tensors counts.
  std::vector<QuantParams> any;
  std::map<std::string, QuantParams> modules;  // by module_key
};

// quantization_config of config.json. A method that is not read here is an Error that names it.
Result<QuantScheme> read_hf_quantization(const std::string& config_json);
// `quantization` of params.json.
Result<QuantScheme> read_mistral_quantization(const std::string& params_json);

// A module's name without the prefixes in which configs and tensors of one file differ:
// "model.language_model.layers.0.mlp.up_proj" -> "layers.0.mlp.up_proj".
std::string module_key(const std::string& name);

using FindTensor = std::function<const TensorView*(const std::string&)>;

// Whether there is a matrix `name` ("….weight"), under its own name or packed.
bool holds_weight(const std::string& name, const FindTensor& find);

// The matrix stored as `name` ("….weight") with its parts, found by any published spelling. What
// the tensors are decides, not the lists of exceptions in the config, which writers get wrong; the
// config gives bits, groups and the kind of code. Reads shapes and single numbers only:
// check_weight reads the rest.
Result<WeightView> assemble_weight(const std::string& name, const QuantScheme& scheme,
                                   const FindTensor& find);
// Reads all scales, zero points and the group index: Error when one of them cannot be. A group
// index that says no more than column / group is dropped.
Result<void> check_weight(WeightView& weight);

}  // namespace bise
