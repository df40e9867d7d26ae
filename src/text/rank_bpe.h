// Byte-pair encoding where the rank of the joined bytes is the priority of a merge (tiktoken's rule).
// There is no merge list. Immutable after create(); any thread may use it.
#pragma once

#include <string_view>
#include <vector>

#include "text/token_table.h"
#include "text/tokenizer.h"

namespace bise {

class RankBpe {
 public:
  RankBpe() = default;
  // `tokens` is indexed; its indices are the ranks. All 256 single bytes must be findable.
  explicit RankBpe(TokenTable tokens);

  // Appends rank + offset for one piece of the pre-tokenizer: the whole piece if it is a token, else
  // the adjacent pair of lowest rank is merged, leftmost first, until no pair is a token.
  void encode_piece(std::string_view piece, TokenId offset, std::vector<TokenId>& out) const;
  const TokenTable& tokens() const { return tokens_; }

 private:
  TokenTable tokens_;
  int32_t byte_rank_[256] = {};
};

}  // namespace bise
