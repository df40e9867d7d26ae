// Any token, type and merge lists: an Error or a tokenizer that works. The input is lines: the name of
// the pre-tokenizer, then "tNAME" for a normal token, "cNAME" for a control token, "mLEFT RIGHT" for a
// merge, and "eTEXT" for text to encode.
#include <cstdint>

#include "text/gguf_bpe.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  std::string_view pre = "smollm", sample;
  std::vector<std::string_view> tokens, merges;
  std::vector<int32_t> types;
  bool first = true;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(line.size() < text.size() ? line.size() + 1 : line.size());
    char kind = line.empty() ? '\0' : line[0];
    std::string_view rest = line.substr(line.empty() ? 0 : 1);
    if (first) pre = line;
    first = false;
    if (kind == 't' || kind == 'c') {
      tokens.push_back(rest);
      types.push_back(kind == 'c' ? 3 : 1);
    }
    if (kind == 'm') merges.push_back(rest);
    if (kind == 'e') sample = rest;
  }
  auto bpe = bise::GgufBpe::create(tokens, types, merges, pre);
  if (!bpe) {
    CHECK(!bpe.error().message().empty());
    return 0;
  }
  for (bise::TokenId id : (*bpe)->encode(sample)) {
    CHECK(id >= 0 && id < (*bpe)->vocab_size() && !(*bpe)->is_special(id));
  }
  return 0;
}
