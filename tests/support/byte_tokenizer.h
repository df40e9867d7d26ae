// A small tokenizer for tests of what stands above tokenizers: the ids of a few special tokens as
// in tekken's files, one id per byte from 1000 on, and further tokens that a test adds.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace bise {

class ByteTokenizer : public Tokenizer {
 public:
  static constexpr TokenId kFirstByte = 1000;

  ByteTokenizer() {
    for (int i = 0; i < 256; ++i) texts_.push_back(std::string(1, static_cast<char>(i)));
  }
  // The names take the first ids; the tokenizer has nothing else that is special.
  explicit ByteTokenizer(std::vector<std::string> special_names) : ByteTokenizer() {
    names_ = std::move(special_names);
  }
  // Adds an ordinary token.
  TokenId add(std::string text) {
    texts_.push_back(std::move(text));
    return vocab_size() - 1;
  }

  using Tokenizer::encode;
  void encode(std::string_view text, std::vector<TokenId>& out) const override {
    for (char c : text) out.push_back(kFirstByte + static_cast<uint8_t>(c));
  }
  std::string_view token_bytes(TokenId id) const override {
    if (id >= kFirstByte && id < vocab_size()) return texts_[static_cast<size_t>(id - kFirstByte)];
    if (id >= 0 && static_cast<size_t>(id) < names_.size()) return names_[static_cast<size_t>(id)];
    return {};
  }
  bool is_special(TokenId id) const override { return id >= 0 && id < kFirstByte; }
  std::optional<TokenId> special(std::string_view name) const override {
    for (size_t i = 0; i < names_.size(); ++i) {
      if (names_[i] == name) return static_cast<TokenId>(i);
    }
    return std::nullopt;
  }
  TokenId vocab_size() const override { return kFirstByte + static_cast<TokenId>(texts_.size()); }

 private:
  std::vector<std::string> texts_;
  // The markers of the Mistral formats at their published ids.
  std::vector<std::string> names_ = [] {
    std::vector<std::string> names;
    for (int i = 0; i < 40; ++i) names.push_back("<SPECIAL_" + std::to_string(i) + ">");
    names[1] = "<s>", names[2] = "</s>", names[4] = "[/INST]", names[9] = "[TOOL_CALLS]";
    names[32] = "[ARGS]", names[33] = "[CALL_ID]", names[34] = "[THINK]", names[35] = "[/THINK]";
    return names;
  }();
};

}  // namespace bise
