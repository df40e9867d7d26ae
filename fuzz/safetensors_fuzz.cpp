// Bytes as a safetensors file: never a view outside the file, and every matrix in it decodes.
#include <vector>

#include "io/quant_scheme.h"
#include "io/safetensors.h"
#include "tensor/weight_format.h"

using namespace bise;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes file{reinterpret_cast<const std::byte*>(data), size};
  auto tensors = parse_safetensors(file, "fuzz.safetensors");
  if (!tensors) {
    CHECK(tensors.error().message().find('\n') == std::string::npos);
    return 0;
  }
  QuantScheme scheme;
  scheme.method = "fp8";
  QuantParams blocks;
  blocks.block_rows = 2;
  blocks.block_columns = 3;
  scheme.any.push_back(blocks);
  auto find = [&](const std::string& name) -> const TensorView* {
    for (const TensorView& tensor : *tensors) {
      if (tensor.name == name) return &tensor;
    }
    return nullptr;
  };
  for (const TensorView& tensor : *tensors) {
    auto weight = assemble_weight(tensor.name, scheme, find);
    if (!weight || weight->rows == 0) continue;
    std::vector<float> row(static_cast<size_t>(weight->columns));
    decode_row(*weight, weight->rows - 1, row);
  }
  return 0;
}
