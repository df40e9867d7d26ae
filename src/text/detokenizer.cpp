#include "text/detokenizer.h"

#include "base/utf8.h"

namespace bise {

void Detokenizer::push(TokenId id, std::string& out) {
  if (tokenizer_->is_special(id)) {
    flush(out);
    if (keep_special_) out += tokenizer_->token_bytes(id);
    return;
  }
  tail_ += tokenizer_->token_bytes(id);
  size_t whole = tail_.size() - incomplete_utf8_tail(tail_);
  // The cut lies before a lead byte, where a decoder of the whole row would also begin anew: so the
  // same bytes become U+FFFD as when all are decoded at once.
  out += repair_utf8(std::string_view(tail_).substr(0, whole));
  tail_.erase(0, whole);
}

void Detokenizer::flush(std::string& out) {
  out += repair_utf8(tail_);
  tail_.clear();
}

}  // namespace bise
