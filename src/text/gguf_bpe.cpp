#include "text/gguf_bpe.h"

#include <algorithm>
#include <array>
#include <tuple>
#include <utility>

#include "base/utf8.h"
#include "text/bpe_merge.h"
#include "text/pre_tokenizer.h"

namespace bise {
namespace {

constexpr size_t kMaxTokens = size_t{1} << 22;
enum TokenType : int32_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

constexpr bool stands_for_itself(uint32_t byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

struct ByteAlphabet {
  std::array<uint16_t, 256> character{};  // by byte
  std::array<int16_t, 324> byte{};        // by character; -1: not in the alphabet
};

constexpr ByteAlphabet kAlphabet = [] {
  ByteAlphabet alphabet;
  for (int16_t& b : alphabet.byte) b = -1;
  uint16_t next = 256;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint16_t c = stands_for_itself(byte) ? static_cast<uint16_t>(byte) : next++;
    alphabet.character[byte] = c;
    alphabet.byte[c] = static_cast<int16_t>(byte);
  }
  return alphabet;
}();

std::string entry(const char* key, size_t index) {
  return std::string("tokenizer.ggml.") + key + "[" + std::to_string(index) + "]";
}

}  // namespace

std::string to_byte_alphabet(std::string_view bytes) {
  std::string text;
  for (char c : bytes) append_utf8(text, kAlphabet.character[static_cast<uint8_t>(c)]);
  return text;
}

bool from_byte_alphabet(std::string_view text, std::string* bytes) {
  bytes->clear();
  for (size_t at = 0; at < text.size();) {
    CodePoint c = decode_utf8(text, at);
    if (!c.valid || c.value >= kAlphabet.byte.size() || kAlphabet.byte[c.value] < 0) return false;
    bytes->push_back(static_cast<char>(kAlphabet.byte[c.value]));
    at += c.length;
  }
  return true;
}

Result<std::unique_ptr<GgufBpe>> GgufBpe::create(std::span<const std::string_view> tokens,
                                                 std::span<const int32_t> token_types,
                                                 std::span<const std::string_view> merges,
                                                 std::string_view pre) {
  std::unique_ptr<GgufBpe> bpe(new GgufBpe());
  if (pre == "smollm") bpe->next_piece_ = next_smollm_piece;
  else if (pre == "gpt-2") bpe->next_piece_ = next_gpt2_piece;
  else if (pre == "tekken") bpe->next_piece_ = next_tekken_piece;
  if (bpe->next_piece_ == nullptr) {
    return Error(ErrorCode::unsupported, "tokenizer.ggml.pre: found \"" +
                                             repair_utf8(pre.substr(0, 60)) +
                                             "\", expected smollm, gpt-2 or tekken");
  }
  TRY(bpe->load_tokens(tokens, token_types));
  if (pre != "tekken") {
    TRY(bpe->load_merges(merges));
    return bpe;
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (bpe->byte_ids_[byte] == TokenTable::kNone) {
      return Error(ErrorCode::corrupt, "tokenizer.ggml.tokens: no token for the byte " +
                                           std::to_string(byte) +
                                           "; a tekken vocabulary has all 256");
    }
  }
  bpe->by_rank_.emplace(std::move(bpe->tokens_));
  return bpe;
}

Result<void> GgufBpe::load_tokens(std::span<const std::string_view> tokens,
                                  std::span<const int32_t> token_types) {
  if (tokens.empty() || tokens.size() > kMaxTokens) {
    return Error(ErrorCode::corrupt, "tokenizer.ggml.tokens: found " + std::to_string(tokens.size()) +
                                         " tokens, expected 1 to " + std::to_string(kMaxTokens));
  }
  if (!token_types.empty() && token_types.size() != tokens.size()) {
    return Error(ErrorCode::corrupt,
                 "tokenizer.ggml.token_type: found " + std::to_string(token_types.size()) +
                     " entries, expected one for each of the " + std::to_string(tokens.size()) +
                     " tokens");
  }
  std::vector<bool> from_text(tokens.size(), false);
  is_special_.assign(tokens.size(), false);
  std::string bytes;
  for (size_t id = 0; id < tokens.size(); ++id) {
    int32_t type = token_types.empty() ? kNormal : token_types[id];
    if (type < kNormal || type > kByte) {
      return Error(ErrorCode::corrupt, entry("token_type", id) + ": found " + std::to_string(type) +
                                           ", expected 1 to 6");
    }
    if (tokens[id].size() > kMaxTokenBytes) {
      return Error(ErrorCode::corrupt, entry("tokens", id) + ": found " +
                                           std::to_string(tokens[id].size()) +
                                           " bytes, expected at most " +
                                           std::to_string(kMaxTokenBytes));
    }
    bool ordinary = type == kNormal || type == kByte;
    // Added words that some converters mark as normal are not in the alphabet: they are spelled as
    // they stand, too, and no text can lead to them.
    from_text[id] = ordinary && from_byte_alphabet(tokens[id], &bytes);
    tokens_.append(from_text[id] ? std::string_view(bytes) : tokens[id]);
    is_special_[id] = !ordinary && type != kUserDefined;
    if (is_special_[id]) {
      special_names_.append(tokens[id]);
      special_ids_.push_back(static_cast<TokenId>(id));
    }
  }
  special_names_.build_index();
  int32_t repeat = tokens_.build_index(from_text);
  if (repeat != TokenTable::kNone) {
    return Error(ErrorCode::corrupt,
                 entry("tokens", static_cast<size_t>(repeat)) + ": the same token as entry " +
                     std::to_string(tokens_.find(tokens_[repeat])) + "; each must occur once");
  }
  for (int byte = 0; byte < 256; ++byte) {
    char c = static_cast<char>(byte);
    byte_ids_[byte] = tokens_.find(std::string_view(&c, 1));
  }
  return {};
}

Result<void> GgufBpe::load_merges(std::span<const std::string_view> merges) {
  if (merges.size() > kMaxTokens) {
    return Error(ErrorCode::corrupt, "tokenizer.ggml.merges: found " + std::to_string(merges.size()) +
                                         " merges, expected at most " + std::to_string(kMaxTokens));
  }
  merges_.reserve(merges.size());
  std::string left, right;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    size_t space = merges[rank].find(' ');
    bool readable = space != std::string_view::npos &&
                    from_byte_alphabet(merges[rank].substr(0, space), &left) &&
                    from_byte_alphabet(merges[rank].substr(space + 1), &right);
    Merge merge{};
    if (readable) {
      merge = {tokens_.find(left), tokens_.find(right), static_cast<uint32_t>(rank),
               tokens_.find(left + right)};
    }
    if (!readable || merge.left < 0 || merge.right < 0 || merge.joined < 0) {
      return Error(ErrorCode::corrupt, entry("merges", rank) + ": found \"" +
                                           repair_utf8(merges[rank].substr(0, 60)) +
                                           "\", expected two tokens whose joint is a token, with "
                                           "one blank between them");
    }
    merges_.push_back(merge);
  }
  std::sort(merges_.begin(), merges_.end(), [](const Merge& a, const Merge& b) {
    return std::tie(a.left, a.right, a.rank) < std::tie(b.left, b.right, b.rank);
  });
  first_merge_.assign(static_cast<size_t>(tokens_.size()) + 1, 0);
  for (size_t i = 0; i < merges_.size(); ++i) {
    ++first_merge_[static_cast<size_t>(merges_[i].left) + 1];
    if (i > 0 && merges_[i - 1].left == merges_[i].left && merges_[i - 1].right == merges_[i].right) {
      return Error(ErrorCode::corrupt, entry("merges", merges_[i].rank) + ": the same merge as entry " +
                                           std::to_string(merges_[i - 1].rank) +
                                           "; each must occur once");
    }
  }
  for (size_t id = 1; id < first_merge_.size(); ++id) first_merge_[id] += first_merge_[id - 1];
  return {};
}

const GgufBpe::Merge* GgufBpe::find_merge(TokenId left, TokenId right) const {
  const Merge* begin = merges_.data() + first_merge_[static_cast<size_t>(left)];
  const Merge* end = merges_.data() + first_merge_[static_cast<size_t>(left) + 1];
  const Merge* at = std::lower_bound(
      begin, end, right, [](const Merge& merge, TokenId wanted) { return merge.right < wanted; });
  return at != end && at->right == right ? at : nullptr;
}

void GgufBpe::encode_piece(std::string_view piece, std::vector<TokenId>& out) const {
  auto pair = [&](uint32_t, uint32_t, int32_t left, int32_t right) {
    const Merge* merge = find_merge(left, right);
    return merge == nullptr ? PairMerge{} : PairMerge{merge->rank, merge->joined};
  };
  auto emit = [&](int32_t id) { out.push_back(id); };
  int32_t short_symbols[kShortPiece];
  std::vector<int32_t> long_symbols;
  while (!piece.empty()) {
    std::string_view part = piece.substr(0, kMaxPiece);
    piece.remove_prefix(part.size());
    int32_t* symbols = short_symbols;
    if (part.size() > kShortPiece) {
      long_symbols.resize(part.size());
      symbols = long_symbols.data();
    }
    uint32_t count = 0;
    for (char c : part) {  // a byte without a token is left out, so that its neighbours meet
      TokenId id = byte_ids_[static_cast<uint8_t>(c)];
      if (id != TokenTable::kNone) symbols[count++] = id;
    }
    if (count > 0) merge_pairs(symbols, count, pair, emit);
  }
}

void GgufBpe::encode(std::string_view text, std::vector<TokenId>& out) const {
  std::string repaired;
  if (!is_valid_utf8(text)) {
    repaired = repair_utf8(text);
    text = repaired;
  }
  for (size_t at = 0; at < text.size();) {
    size_t end = next_piece_(text, at);
    std::string_view piece = text.substr(at, end - at);
    if (by_rank_) by_rank_->encode_piece(piece, 0, out);
    else encode_piece(piece, out);
    at = end;
  }
}

std::string_view GgufBpe::token_bytes(TokenId id) const {
  if (id < 0 || id >= vocab_size()) return {};
  return tokens()[id];
}

bool GgufBpe::is_special(TokenId id) const {
  return id >= 0 && id < vocab_size() && is_special_[static_cast<size_t>(id)];
}

std::optional<TokenId> GgufBpe::special(std::string_view name) const {
  int32_t index = special_names_.find(name);
  if (index == TokenTable::kNone) return std::nullopt;
  return special_ids_[static_cast<size_t>(index)];
}

}  // namespace bise
