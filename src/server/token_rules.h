// Masks over the mask of a structure (or over none): rules about tokens that a request has beside it.
#pragma once

#include <optional>
#include <vector>

#include "engine/token_mask.h"
#include "text/tokenizer.h"

namespace bise {

// Sequences of tokens that must not come: where all but the last of one have been generated, the last
// may not follow (vLLM's bad_words). `sequences` are not empty, and none of them is.
TokenMaskFactory forbid_sequences(TokenMaskFactory inner, std::vector<std::vector<int32_t>> sequences);

// The tokens of one bad word, as vLLM takes them: of the word, and with a blank in front where that is
// another token in place of the first.
void add_bad_word(const std::string& word, const Tokenizer& tokenizer, std::vector<std::vector<int32_t>>& out);

struct ThinkingLimit {
  int64_t budget = 0;  // tokens between the two marks
  int32_t begin = 0, end = 0;  // the marks
  bool starts_inside = false;  // the prompt ends behind `begin`
  const Tokenizer* tokenizer = nullptr;
};
// When the budget is used up only the end mark may come; a character that is cut there may end first.
// A structure that does not allow the mark yet is stronger.
TokenMaskFactory limit_thinking(TokenMaskFactory inner, ThinkingLimit limit);

}  // namespace bise
