// One safetensors file: u64 header length, a JSON header {name: {dtype, shape, data_offsets}},
// then one blob without gaps. Headers of MLX are unpadded, so the blob may start at any byte.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "tensor/tensor_view.h"

namespace bise {

// Views into `bytes`, which must outlive them, in file order. Every offset is checked: inside the
// blob, of the size that dtype and shape ask for, none over another, no gaps.
Result<std::vector<TensorView>> parse_safetensors(Bytes bytes, const std::string& path);

}  // namespace bise
