#include "text/tokenizer.h"

#include "text/detokenizer.h"

namespace bise {

std::string Tokenizer::decode(std::span<const TokenId> ids, bool keep_special) const {
  std::string text;
  Detokenizer detokenizer(*this, keep_special);
  for (TokenId id : ids) detokenizer.push(id, text);
  detokenizer.flush(text);
  return text;
}

}  // namespace bise
