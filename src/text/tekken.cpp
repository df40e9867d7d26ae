#include "text/tekken.h"

#include "base/utf8.h"
#include "text/pre_tokenizer.h"

namespace bise {

const char* tekken_version_name(TekkenVersion version) {
  switch (version) {
    case TekkenVersion::v3: return "v3";
    case TekkenVersion::v7: return "v7";
    case TekkenVersion::v11: return "v11";
    case TekkenVersion::v13: return "v13";
    case TekkenVersion::v15: return "v15";
  }
  return "unknown";
}

void Tekken::encode(std::string_view text, std::vector<TokenId>& out) const {
  std::string repaired;
  if (!is_valid_utf8(text)) {
    repaired = repair_utf8(text);
    text = repaired;
  }
  for (size_t at = 0; at < text.size();) {
    size_t end = next_tekken_piece(text, at);
    bpe_.encode_piece(text.substr(at, end - at), num_special_, out);
    at = end;
  }
}

std::string_view Tekken::token_bytes(TokenId id) const {
  if (id < 0 || id >= vocab_size()) return {};
  if (id < num_special_) return special_tokens_[id];
  return bpe_.tokens()[id - num_special_];
}

bool Tekken::is_special(TokenId id) const { return id >= 0 && id < num_special_; }

std::optional<TokenId> Tekken::special(std::string_view name) const {
  int32_t id = special_tokens_.find(name);
  if (id == TokenTable::kNone) return std::nullopt;
  return id;
}

TokenId Tekken::vocab_size() const { return num_special_ + bpe_.tokens().size(); }

}  // namespace bise
