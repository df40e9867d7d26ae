// The formats in which `bise bench make-model` writes random weights: which tensors store one matrix, and
// what the configuration says about them. A new format is one row in model_formats.cpp.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "io/checkpoint.h"
#include "tensor/weight_format.h"

namespace bise {

// One stored tensor of a random model.
struct RandomTensor {
  std::string name;
  // Plain formats make a tensor of their type; GGUF's blocks one of theirs (GGUF files only).
  FormatId format = FormatId::bf16;
  std::vector<int64_t> shape;  // slowest dimension first; empty: one number
  // Weights are drawn; norms and scales have one value in every place.
  bool random = true;
  float value = 0.0f;
};

struct RandomMatrix {
  std::string stem;   // the name on disk up to "weight"
  int64_t rows = 0, columns = 0;
  bool in_body = true;  // a linear of a layer; false: embedding and head
};

struct ModelFormat {
  std::string name;       // as --format takes it
  FormatId weights;       // of the matrices of the layers
  std::string dtype;      // `dtype` of config.json
  std::vector<Layout> layouts;  // that can hold it
  std::vector<RandomTensor> (*tensors)(const ModelFormat& format, const RandomMatrix& matrix, Layout layout);
  // Adds to config.json (hf) or params.json (mistral); nullptr: nothing to add.
  void (*describe)(Json& config, Layout layout);
};

const std::vector<ModelFormat>& model_formats();
// Error lists the formats that are known.
Result<const ModelFormat*> find_model_format(const std::string& name);
// The deviation of the weights that every random model has.
constexpr double kRandomDeviation = 0.02;

}  // namespace bise
