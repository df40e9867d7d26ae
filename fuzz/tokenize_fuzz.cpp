// Any bytes as text for each pre-tokenizer, and any ids for the detokenizer: pieces put together are
// the text, decoding gives the repaired text, and only whole characters come out.
#include <cstdint>
#include <memory>

#include "base/utf8.h"
#include "text/detokenizer.h"
#include "text/gguf_bpe.h"
#include "text/pre_tokenizer.h"

namespace {

using namespace bise;

// All bytes and some longer tokens, merged by rank.
std::unique_ptr<GgufBpe> small_vocabulary() {
  std::vector<std::string> names = {"[INST]"};
  for (int byte = 0; byte < 256; ++byte) {
    names.push_back(to_byte_alphabet(std::string(1, static_cast<char>(byte))));
  }
  for (const char* token : {"  ", "aa", "he", "ll", "hell", "\n\n", "    ", "\u0301\u0301", "ab", "aaaa", "中"}) {
    names.push_back(to_byte_alphabet(token));
  }
  std::vector<std::string_view> tokens(names.begin(), names.end());
  std::vector<int32_t> types(tokens.size(), 1);
  types[0] = 3;
  auto bpe = GgufBpe::create(tokens, types, {}, "tekken");
  CHECK(bpe.has_value());
  return std::move(bpe).value();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::unique_ptr<GgufBpe> bpe = small_vocabulary();
  std::string_view text(reinterpret_cast<const char*>(data), size);
  std::string repaired = repair_utf8(text);
  for (auto next : {next_tekken_piece, next_gpt2_piece, next_smollm_piece}) {
    for (size_t at = 0; at < repaired.size();) {
      size_t end = next(repaired, at);
      CHECK(end > at && end <= repaired.size());
      CHECK(is_valid_utf8(std::string_view(repaired).substr(at, end - at)));
      at = end;
    }
  }
  CHECK(bpe->decode(bpe->encode(text), true) == repaired);

  std::vector<TokenId> ids;
  for (size_t i = 0; i < size; ++i) ids.push_back(data[i] + (i % 5 == 4 ? 12 : 0));
  Detokenizer detokenizer(*bpe, true);
  std::string all;
  for (TokenId id : ids) {
    std::string part = detokenizer.push(id);
    CHECK(is_valid_utf8(part));
    all += part;
  }
  all += detokenizer.flush();
  CHECK(all == bpe->decode(ids, true));
  return 0;
}
