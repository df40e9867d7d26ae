// A tekken.json of 256 bytes, a few longer tokens and 10 special ids, whose parts a test can replace.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/pre_tokenizer.h"

namespace bise::testing {

inline std::string to_base64(std::string_view bytes) {
  constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t at = 0; at < bytes.size(); at += 3) {
    uint32_t bits = 0;
    size_t count = std::min<size_t>(3, bytes.size() - at);
    for (size_t i = 0; i < 3; ++i) {
      bits = bits << 8 | (i < count ? static_cast<uint8_t>(bytes[at + i]) : 0u);
    }
    for (size_t i = 0; i < 4; ++i) {
      text.push_back(i <= count ? kAlphabet[bits >> (18 - 6 * i) & 63] : '=');
    }
  }
  return text;
}

inline Json small_tekken(const std::string& version = "v15",
                         const std::vector<std::string>& tokens = {"he", "ll", "hell", "hello"}) {
  Json file;
  int64_t vocab_size = static_cast<int64_t>(10 + 256 + tokens.size());
  file["config"] = {{"pattern", std::string(kTekkenPattern)},
                    {"num_vocab_tokens", vocab_size - 10},
                    {"default_vocab_size", vocab_size},
                    {"default_num_special_tokens", 10},
                    {"version", version}};
  for (int64_t rank = 0; rank < vocab_size - 10; ++rank) {
    std::string bytes = rank < 256 ? std::string(1, static_cast<char>(rank))
                                   : tokens[static_cast<size_t>(rank - 256)];
    file["vocab"].push_back(
        {{"rank", rank}, {"token_bytes", to_base64(bytes)}, {"token_str", nullptr}});
  }
  const char* names[] = {"<unk>", "<s>", "</s>", "[INST]"};
  for (int rank = 0; rank < 4; ++rank) {
    file["special_tokens"].push_back(
        {{"rank", rank}, {"token_str", names[rank]}, {"is_control", true}});
  }
  return file;
}

}  // namespace bise::testing
