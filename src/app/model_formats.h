// The formats in which `bise bench make-model` writes random weights: which tensors store one matrix, and
// what the configuration says about them. A new format is one row in model_formats.cpp.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "io/checkpoint.h"
#include "tensor/dtype.h"
#include "tensor/weight_format.h"

namespace bise {

enum class RandomContent : uint8_t {
  weights,      // `format`: plain elements, or blocks of GGUF
  constant,     // `value` in every place
  codes,        // bits of any value
  scales,       // of the root mean square `value` (tensor/random_weight.h), times `factor`
  group_index,  // element i is i / `value`
  sizes,        // two numbers: `value` and `second`
};

// One stored tensor of a random model.
struct RandomTensor {
  std::string name;
  std::vector<int64_t> shape;  // slowest dimension first; empty: one number
  RandomContent content = RandomContent::constant;
  FormatId format = FormatId::bf16;  // of `weights`
  DType dtype = DType::f32;          // of all others
  double value = 0.0;
  double factor = 1.0, second = 0.0;
  // Scales that follow those of the tensor so many places before this one.
  int follows = 0;
};

struct RandomMatrix {
  std::string stem;   // the name on disk up to "weight"
  int64_t rows = 0, columns = 0;
  bool in_body = true;  // a linear of a layer; false: embedding and head
};

struct ModelFormat {
  std::string name;             // as --format takes it
  std::string dtype;            // `dtype` of config.json, the type of vectors
  std::vector<Layout> layouts;  // that can hold it
  // Of the matrices of the layers: as the reader names it, bits of a code, columns that share a scale (what
  // the columns must be a multiple of).
  FormatId weights;
  int32_t bits = 0;
  int64_t group = 1;
  std::vector<RandomTensor> (*tensors)(const ModelFormat& format, const RandomMatrix& matrix, Layout layout);
  // Adds to config.json (hf) or params.json (mistral); nullptr: nothing to add.
  void (*describe)(const ModelFormat& format, Json& config, Layout layout);
};

const std::vector<ModelFormat>& model_formats();
// Each once: some stand for a form in folders and another in GGUF.
std::vector<std::string> model_format_names();
// Error lists the formats that are known, or the layouts that this one can be written in.
Result<const ModelFormat*> find_model_format(const std::string& name, Layout layout);
// The deviation of the weights that every random model has.
constexpr double kRandomDeviation = 0.02;

}  // namespace bise
