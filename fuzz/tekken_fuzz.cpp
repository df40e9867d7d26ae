// Any bytes as tekken.json: an Error or a tokenizer that works.
#include <cstdint>

#include "text/tekken.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  auto tekken = bise::Tekken::parse(text, "fuzz");
  if (!tekken) {
    CHECK(!tekken.error().message().empty());
    return 0;
  }
  std::string sample = "Hello, wörld! 2024\n\n  中文";
  CHECK((*tekken)->decode((*tekken)->encode(sample), false) == sample);
  CHECK((*tekken)->token_bytes((*tekken)->vocab_size()).empty());
  return 0;
}
