#include "text/rank_bpe.h"

#include <utility>

#include "base/error.h"
#include "text/bpe_merge.h"

namespace bise {

RankBpe::RankBpe(TokenTable tokens) : tokens_(std::move(tokens)) {
  for (int byte = 0; byte < 256; ++byte) {
    char c = static_cast<char>(byte);
    byte_rank_[byte] = tokens_.find(std::string_view(&c, 1));
    CHECK(byte_rank_[byte] != TokenTable::kNone);
  }
}

void RankBpe::encode_piece(std::string_view piece, TokenId offset, std::vector<TokenId>& out) const {
  int32_t whole = tokens_.find(piece);
  if (whole != TokenTable::kNone) {
    out.push_back(whole + offset);
    return;
  }
  auto emit = [&](int32_t rank) { out.push_back(rank + offset); };
  auto run = [&](std::string_view part, const int32_t* symbols) {
    auto pair = [&](uint32_t begin, uint32_t end, int32_t, int32_t) {
      int32_t rank = tokens_.find(part.substr(begin, end - begin));
      if (rank == TokenTable::kNone) return PairMerge{};
      return PairMerge{static_cast<uint32_t>(rank), rank};
    };
    merge_pairs(symbols, static_cast<uint32_t>(part.size()), pair, emit);
  };
  auto fill = [&](std::string_view part, int32_t* symbols) {
    for (size_t i = 0; i < part.size(); ++i) {
      symbols[i] = byte_rank_[static_cast<uint8_t>(part[i])];
    }
  };
  if (!piece.empty() && piece.size() <= kShortPiece) {
    int32_t symbols[kShortPiece];
    fill(piece, symbols);
    run(piece, symbols);
    return;
  }
  std::vector<int32_t> symbols;
  while (!piece.empty()) {
    std::string_view part = piece.substr(0, kMaxPiece);
    piece.remove_prefix(part.size());
    symbols.resize(part.size());
    fill(part, symbols.data());
    run(part, symbols.data());
  }
}

}  // namespace bise
