// What every tokenizer answers. Immutable after loading; any thread may use it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bise {

using TokenId = int32_t;

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Ids of plain text: no BOS, and control tokens never arise from text. Bytes that are not UTF-8
  // count as U+FFFD. Appends to `out`. Linear (times a logarithm) in the text's length.
  virtual void encode(std::string_view text, std::vector<TokenId>& out) const = 0;
  // The bytes a token stands for; a special token's are its name ("[INST]"). Empty when out of range.
  virtual std::string_view token_bytes(TokenId id) const = 0;
  virtual bool is_special(TokenId id) const = 0;
  // The id of a special token by its name.
  virtual std::optional<TokenId> special(std::string_view name) const = 0;
  virtual TokenId vocab_size() const = 0;

  // Ordinary ids in a row are joined as bytes and then decoded as UTF-8 with U+FFFD for bad bytes
  // (one per maximal invalid part); special ids end such a row and are written by name or dropped.
  std::string decode(std::span<const TokenId> ids, bool keep_special) const;
  std::vector<TokenId> encode(std::string_view text) const {
    std::vector<TokenId> out;
    encode(text, out);
    return out;
  }
};

}  // namespace bise
