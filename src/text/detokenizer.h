// Token ids to text while they are being generated: only whole UTF-8 characters come out.
#pragma once

#include <string>
#include <string_view>

#include "text/tokenizer.h"

namespace bise {

// Holds back at most the 3 bytes that could still begin a character. The texts of all calls put
// together are what Tokenizer::decode gives for all ids. Not thread-safe; the tokenizer must outlive it.
class Detokenizer {
 public:
  explicit Detokenizer(const Tokenizer& tokenizer, bool keep_special = false)
      : tokenizer_(&tokenizer), keep_special_(keep_special) {}

  // Appends what `id` completes. A special id first ends the row of bytes, as flush() does, and is
  // then written by name or dropped.
  void push(TokenId id, std::string& out);
  // Ends the row of bytes: a character that was begun becomes U+FFFD.
  void flush(std::string& out);

  std::string push(TokenId id) {
    std::string out;
    push(id, out);
    return out;
  }
  std::string flush() {
    std::string out;
    flush(out);
    return out;
  }

 private:
  const Tokenizer* tokenizer_;
  bool keep_special_;
  std::string tail_;  // bytes not yet whole, at most 3 between calls
};

}  // namespace bise
