// TensorView: name, type, shape and bytes of one stored tensor. Owns nothing; must not outlive the
// Checkpoint it came from.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "tensor/dtype.h"

namespace bise {

struct TensorView {
  std::string name;
  DType dtype = DType::f32;
  // Row-major, slowest dimension first (GGUF's order is reversed when it is read).
  std::vector<int64_t> shape;
  Bytes bytes;
  // ggml's type number when dtype is `block`, else -1.
  int ggml_type = -1;

  int64_t num_elements() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
};

// "[576, 49152]"
std::string shape_text(const std::vector<int64_t>& shape);

}  // namespace bise
