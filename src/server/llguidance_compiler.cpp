// StructureCompiler over the llguidance library: a lazy lexer and an Earley parser over the bytes of the
// vocabulary, so a grammar costs little to begin with and a mask costs microseconds.
#include <llguidance.h>

#include <algorithm>

#include "server/structure_compiler.h"

namespace bise {
namespace {

struct FreeTokenizer {
  void operator()(LlgTokenizer* tokenizer) const { llg_free_tokenizer(tokenizer); }
};
struct FreeMatcher {
  void operator()(LlgMatcher* matcher) const { llg_free_matcher(matcher); }
};
using TokenizerHandle = std::unique_ptr<LlgTokenizer, FreeTokenizer>;
using MatcherHandle = std::unique_ptr<LlgMatcher, FreeMatcher>;

// The library shows the grammar behind its message; that is ours, and no help to the client.
Error grammar_error(const char* message) {
  std::string text = message != nullptr ? message : "unknown fault";
  text = text.substr(0, text.find("\n   1 | "));
  return Error(ErrorCode::invalid_argument, "the structure cannot be followed: " + text).with_kind("invalid_structure");
}

class MatcherMask final : public TokenMask {
 public:
  MatcherMask(MatcherHandle matcher, size_t mask_bytes) : matcher_(std::move(matcher)), buffer_(mask_bytes / sizeof(uint32_t)) {}

  Result<bool> fill(std::span<uint32_t> bitmask) override {
    if (llg_matcher_compute_mask_into(matcher_.get(), buffer_.data(), buffer_.size() * sizeof(uint32_t)) != 0) {
      return grammar_error(llg_matcher_get_error(matcher_.get()));
    }
    std::copy_n(buffer_.begin(), std::min(buffer_.size(), bitmask.size()), bitmask.begin());
    return true;
  }
  Result<void> accept(int32_t token) override {
    if (llg_matcher_consume_token(matcher_.get(), static_cast<uint32_t>(token)) != 0) {
      return grammar_error(llg_matcher_get_error(matcher_.get()));
    }
    return {};
  }
  bool is_finished() const override { return llg_matcher_is_stopped(matcher_.get()); }

 private:
  MatcherHandle matcher_;
  std::vector<uint32_t> buffer_;
};

class LlguidanceCompiler final : public StructureCompiler {
 public:
  explicit LlguidanceCompiler(TokenizerHandle tokenizer) : tokenizer_(std::move(tokenizer)) {}
  bool available() const override { return true; }

  Result<TokenMaskFactory> compile(const std::string& lark) const override {
    LlgConstraintInit init = {};
    llg_constraint_init_set_defaults(&init, tokenizer_.get());
    init.log_buffer_level = 0;
    init.log_stderr_level = 0;
    init.limits.verbose_errors = false;
    std::shared_ptr<LlgMatcher> first(llg_new_matcher(&init, "lark", lark.c_str()), FreeMatcher());
    if (llg_matcher_is_error(first.get())) return grammar_error(llg_matcher_get_error(first.get()));
    const size_t mask_bytes = llg_matcher_get_mask_byte_size(first.get());
    return TokenMaskFactory([first, mask_bytes]() -> Result<std::unique_ptr<TokenMask>> {
      MatcherHandle matcher(llg_clone_matcher(first.get()));
      return std::unique_ptr<TokenMask>(std::make_unique<MatcherMask>(std::move(matcher), mask_bytes));
    });
  }

 private:
  TokenizerHandle tokenizer_;
};

}  // namespace

Result<std::unique_ptr<StructureCompiler>> create_structure_compiler(const Tokenizer& tokenizer,
                                                                     const std::vector<int32_t>& stop_tokens) {
  constexpr char kSpecial = '\xff';  // llguidance's mark of a token that is no text
  std::string bytes;
  std::vector<uint32_t> lengths;
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
    const size_t before = bytes.size();
    if (tokenizer.is_special(id)) bytes += kSpecial;
    bytes += tokenizer.token_bytes(id);
    lengths.push_back(static_cast<uint32_t>(bytes.size() - before));
  }
  std::vector<LlgToken> ends(stop_tokens.begin(), stop_tokens.end());
  if (ends.empty()) return Error(ErrorCode::unsupported, "structured output needs a token that ends an answer");
  LlgTokenizerInitV2 init = {};
  init.struct_size = sizeof init;
  init.vocab_size = static_cast<uint32_t>(lengths.size());
  init.tok_eos = ends[0];
  init.token_lens = lengths.data();
  init.token_bytes = reinterpret_cast<const uint8_t*>(bytes.data());
  init.use_approximate_greedy_tokenize_fn = true;  // only forced tokens would need the true one
  init.tok_eos_extra = ends.data() + 1;
  init.tok_eos_extra_count = static_cast<uint32_t>(ends.size() - 1);
  char message[300] = "";
  TokenizerHandle handle(llg_new_tokenizer_v2(&init, message, sizeof message));
  if (!handle) return Error(ErrorCode::internal, std::string("llguidance cannot read the vocabulary: ") + message);
  return std::unique_ptr<StructureCompiler>(std::make_unique<LlguidanceCompiler>(std::move(handle)));
}

}  // namespace bise
