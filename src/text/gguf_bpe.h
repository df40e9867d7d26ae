// Byte-level BPE as GGUF files hold it: a token list in GPT-2's byte alphabet, token types, a merge
// list and the name of a pre-tokenizer. Knows nothing of the file: it is given the lists.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "text/rank_bpe.h"
#include "text/token_table.h"
#include "text/tokenizer.h"

namespace bise {

// Bytes to the printable characters of GPT-2's vocabulary files: 33..126, 161..172, 174..255 stand for
// themselves, the other 68 in order are U+0100 upwards. The way back is false for other characters.
std::string to_byte_alphabet(std::string_view bytes);
bool from_byte_alphabet(std::string_view text, std::string* bytes);

class GgufBpe final : public Tokenizer {
 public:
  // `token_types` are GGUF's numbers: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte;
  // an empty list means all normal. Unknown, control and unused tokens are special; like user-defined
  // ones they are spelled as they stand and never arise from text.
  // `merges` are "left right", the lowest rank first. `pre` is "smollm", "gpt-2" or "tekken"; the last
  // goes by the rank of tokens (their id) and does not read the merges.
  // All is copied. Errors begin with the name of the GGUF key at fault.
  static Result<std::unique_ptr<GgufBpe>> create(std::span<const std::string_view> tokens,
                                                 std::span<const int32_t> token_types,
                                                 std::span<const std::string_view> merges,
                                                 std::string_view pre);

  using Tokenizer::encode;
  void encode(std::string_view text, std::vector<TokenId>& out) const override;
  std::string_view token_bytes(TokenId id) const override;
  bool is_special(TokenId id) const override;
  std::optional<TokenId> special(std::string_view name) const override;
  TokenId vocab_size() const override { return tokens().size(); }

 private:
  GgufBpe() = default;
  struct Merge {
    TokenId left, right;
    uint32_t rank;
    TokenId joined;
  };
  Result<void> load_tokens(std::span<const std::string_view> tokens,
                           std::span<const int32_t> token_types);
  Result<void> load_merges(std::span<const std::string_view> merges);
  const TokenTable& tokens() const { return by_rank_ ? by_rank_->tokens() : tokens_; }
  const Merge* find_merge(TokenId left, TokenId right) const;
  void encode_piece(std::string_view piece, std::vector<TokenId>& out) const;

  size_t (*next_piece_)(std::string_view text, size_t at) = nullptr;
  TokenTable tokens_;               // moved into by_rank_ for "tekken"
  std::optional<RankBpe> by_rank_;  // "tekken" only
  TokenId byte_ids_[256] = {};      // TokenTable::kNone: the vocabulary lacks this byte
  std::vector<Merge> merges_;       // sorted by (left, right)
  std::vector<uint32_t> first_merge_;  // by left id; one more entry at the end
  std::vector<bool> is_special_;
  TokenTable special_names_;
  std::vector<TokenId> special_ids_;  // of special_names_
};

}  // namespace bise
