// A model's shape from config.json, params.json and GGUF metadata: any bytes give a configuration or
// one line that says what is wrong.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "io/gguf.h"
#include "model/config_readers.h"

namespace {

void check(const bise::Result<bise::ModelConfig>& config) {
  if (config) return;
  const std::string& message = config.error().message();
  if (message.empty() || message.find('\n') != std::string::npos) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string text(reinterpret_cast<const char*>(data), size);
  check(bise::read_hf_config(text, {}));
  check(bise::read_mistral_config(text, {}));
  auto file = bise::GgufFile::parse(bise::as_bytes(text), "fuzz.gguf");
  if (file) check(bise::read_gguf_config(*file, &*file, {}));
  return 0;
}
