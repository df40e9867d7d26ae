// Bytes as config.json and as params.json: what they say about quantisation, or one line of
// refusal.
#include "base/bytes.h"
#include "io/quant_scheme.h"

using namespace bise;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string text(reinterpret_cast<const char*>(data), size);
  for (const auto& scheme : {read_hf_quantization(text), read_mistral_quantization(text)}) {
    if (scheme) {
      for (const QuantParams& p : scheme->any) {
        CHECK(p.block_rows >= 0 && (p.block_rows == 0) == (p.block_columns == 0));
        CHECK(p.group >= kWholeRow && p.bits >= 0);
      }
    } else {
      CHECK(scheme.error().message().find('\n') == std::string::npos);
    }
  }
  return 0;
}
