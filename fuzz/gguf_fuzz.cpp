// Bytes as a GGUF file: never a view outside the file, every known matrix decodes, and every
// metadata value can be asked for in every way.
#include <vector>

#include "io/gguf.h"
#include "io/quant_scheme.h"
#include "tensor/weight_format.h"

using namespace bise;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes bytes{reinterpret_cast<const std::byte*>(data), size};
  auto file = GgufFile::parse(bytes, "fuzz.gguf");
  if (!file) {
    CHECK(file.error().message().find('\n') == std::string::npos);
    return 0;
  }
  for (const auto& [key, value] : file->metadata()) {
    (void)file->get_int(key, 0);
    (void)file->get_number(key, 0);
    (void)file->get_bool(key, false);
    (void)file->get_string(key, "");
    (void)file->get_strings(key);
    (void)file->get_ints(key);
    (void)file->get_floats(key);
  }
  for (const TensorView& tensor : file->tensors()) {
    auto weight =
        assemble_weight(tensor.name, QuantScheme(), [&](const std::string&) { return &tensor; });
    if (!weight || weight->rows == 0) continue;
    std::vector<float> row(static_cast<size_t>(weight->columns));
    decode_row(*weight, weight->rows - 1, row);
  }
  return 0;
}
