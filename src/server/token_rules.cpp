#include "server/token_rules.h"

#include <algorithm>
#include <string>

#include "base/utf8.h"

namespace bise {
namespace {

bool is_allowed(std::span<const uint32_t> bits, int32_t id) { return (bits[static_cast<size_t>(id) / 32] >> (id % 32) & 1) != 0; }

// Has what is below it; without, all tokens may come.
class MaskOver : public TokenMask {
 public:
  explicit MaskOver(std::unique_ptr<TokenMask> inner) : inner_(std::move(inner)) {}
  Result<bool> fill(std::span<uint32_t> bits) override {
    if (!inner_) return false;
    return inner_->fill(bits);
  }
  Result<void> accept(int32_t token) override {
    if (!inner_) return {};
    return inner_->accept(token);
  }
  bool is_finished() const override { return inner_ && inner_->is_finished(); }

 private:
  std::unique_ptr<TokenMask> inner_;
};

Result<std::unique_ptr<TokenMask>> made(const TokenMaskFactory& make) {
  if (!make) return std::unique_ptr<TokenMask>();
  return make();
}

class ForbidSequences final : public MaskOver {
 public:
  using Sequences = std::shared_ptr<const std::vector<std::vector<int32_t>>>;
  ForbidSequences(std::unique_ptr<TokenMask> inner, Sequences sequences) : MaskOver(std::move(inner)), sequences_(std::move(sequences)) {
    for (const auto& sequence : *sequences_) reach_ = std::max(reach_, sequence.size() - 1);
  }

  Result<bool> fill(std::span<uint32_t> bits) override {
    const bool is_limited = TRY(MaskOver::fill(bits));
    bool forbids = false;
    for (const auto& sequence : *sequences_) {
      const size_t before = sequence.size() - 1;
      if (before > last_.size() || !std::equal(sequence.begin(), sequence.end() - 1, last_.end() - static_cast<ptrdiff_t>(before))) continue;
      if (!is_limited && !forbids) std::fill(bits.begin(), bits.end(), ~uint32_t{0});
      forbids = true;
      bits[static_cast<size_t>(sequence.back()) / 32] &= ~(uint32_t{1} << (sequence.back() % 32));
    }
    if (forbids && std::all_of(bits.begin(), bits.end(), [](uint32_t word) { return word == 0; })) {
      return Error(ErrorCode::invalid_argument, "bad_words forbid all that the structure asked for allows").with_kind("invalid_structure").with_param("bad_words");
    }
    return is_limited || forbids;
  }
  Result<void> accept(int32_t token) override {
    TRY(MaskOver::accept(token));
    last_.push_back(token);
    if (last_.size() > reach_) last_.erase(last_.begin());
    return {};
  }

 private:
  Sequences sequences_;
  size_t reach_ = 0;
  std::vector<int32_t> last_;  // tokens, at most `reach_`
};

class LimitThinking final : public MaskOver {
 public:
  LimitThinking(std::unique_ptr<TokenMask> inner, const ThinkingLimit& limit)
      : MaskOver(std::move(inner)), limit_(limit), is_inside_(limit.starts_inside) {}

  Result<bool> fill(std::span<uint32_t> bits) override {
    const bool is_limited = TRY(MaskOver::fill(bits));
    constexpr int64_t kLongestTail = 3;  // bytes, and so tokens, that a character can lack
    if (!is_inside_ || used_ < limit_.budget) return is_limited;
    if (incomplete_utf8_tail(tail_) > 0 && used_ < limit_.budget + kLongestTail) return is_limited;
    if (is_limited && !is_allowed(bits, limit_.end)) return true;
    std::fill(bits.begin(), bits.end(), 0u);
    bits[static_cast<size_t>(limit_.end) / 32] |= uint32_t{1} << (limit_.end % 32);
    return true;
  }
  Result<void> accept(int32_t token) override {
    TRY(MaskOver::accept(token));
    if (token == limit_.end || (token == limit_.begin && !is_inside_)) {
      is_inside_ = token == limit_.begin;
      tail_.clear();
    } else if (is_inside_) {  // a second `begin`, too
      ++used_;
      tail_ += limit_.tokenizer->token_bytes(token);
      if (tail_.size() > 8) tail_.erase(0, tail_.size() - 8);
    }
    return {};
  }

 private:
  const ThinkingLimit limit_;
  bool is_inside_;
  int64_t used_ = 0;
  std::string tail_;  // the last bytes of the thinking
};

}  // namespace

TokenMaskFactory forbid_sequences(TokenMaskFactory inner, std::vector<std::vector<int32_t>> sequences) {
  auto shared = std::make_shared<const std::vector<std::vector<int32_t>>>(std::move(sequences));
  return [inner = std::move(inner), shared]() -> Result<std::unique_ptr<TokenMask>> {
    std::unique_ptr<TokenMask> below = TRY(made(inner));
    return std::unique_ptr<TokenMask>(std::make_unique<ForbidSequences>(std::move(below), shared));
  };
}

void add_bad_word(const std::string& word, const Tokenizer& tokenizer, std::vector<std::vector<int32_t>>& out) {
  const std::string bare = word.substr(std::min(word.find_first_not_of(' '), word.size()));
  std::vector<int32_t> plain, blank;
  tokenizer.encode(bare, plain);
  tokenizer.encode(" " + bare, blank);
  if (!plain.empty()) out.push_back(plain);
  if (!blank.empty() && (plain.empty() || (blank.front() != plain.front() && blank.size() == plain.size()))) out.push_back(blank);
}

TokenMaskFactory limit_thinking(TokenMaskFactory inner, ThinkingLimit limit) {
  return [inner = std::move(inner), limit]() -> Result<std::unique_ptr<TokenMask>> {
    std::unique_ptr<TokenMask> below = TRY(made(inner));
    return std::unique_ptr<TokenMask>(std::make_unique<LimitThinking>(std::move(below), limit));
  };
}

}  // namespace bise
