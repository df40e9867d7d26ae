// The probe of structured output: which texts a schema, regex or grammar lets pass, what a model without
// any sense would write under it, and what each token mask costs. It needs a vocabulary, no weights.
#include <algorithm>
#include <chrono>

#include "app/model_files.h"
#include "app/model_source.h"
#include "app/probe.h"
#include "base/file.h"
#include "base/random.h"
#include "base/utf8.h"
#include "server/chat_grammar.h"
#include "server/structure_compiler.h"

namespace bise {
namespace {

class StructureProbe : public Probe {
 public:
  StructureProbe(OpenChat chat, std::unique_ptr<StructureCompiler> compiler)
      : chat_(std::move(chat)), compiler_(std::move(compiler)), stops_(chat_.service->stop_tokens()) {
    const Tokenizer& tokenizer = chat_.service->tokenizer();
    for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
      const std::string bytes(tokenizer.token_bytes(id));
      const bool closes = !bytes.empty() && std::string_view("\"}],").find(bytes[0]) != std::string_view::npos;
      if (closes && !tokenizer.is_special(id)) closers_.push_back(id);
    }
  }

  const char* raw_member() const override { return "schema"; }
  void set_raw(std::string_view raw) override { schema_ = raw; }

  Result<void> answer(const Json& line, const Emit& emit) override {
    TRY(allow_fields(line, {"schema", "regex", "grammar", "structural_tag", "texts", "walks", "max_tokens", "seed"}));
    const Structure structure = TRY(structure_of(line));
    const std::vector<std::string> texts = TRY(string_list(line, "texts"));
    const int64_t walks = TRY(json_int(line, "walks", 0, "")), most = TRY(json_int(line, "max_tokens", 200, ""));
    const int64_t seed = TRY(json_int(line, "seed", 0, ""));
    if (walks < 0 || walks > 10000) return bad_field("walks", "expected 0 to 10000");

    auto lark = structure_grammar(structure);
    if (!lark) return bad_field(lark.error().param, lark.error().message);
    const auto begin = Clock::now();
    const TokenMaskFactory factory = TRY(compiler_->compile(*lark));
    Json answer = {{"compile_us", microseconds(begin)},
                   {"accepted", Json::array()},
                   {"walks", Json::array()},
                   {"finished", Json::array()}};
    mask_us_.clear();
    for (const std::string& text : texts) answer["accepted"].push_back(TRY(accepts(factory, text)));
    for (int64_t i = 0; i < walks; ++i) {
      std::string text;
      answer["finished"].push_back(TRY(walk(factory, static_cast<uint64_t>(seed), static_cast<uint64_t>(i), most, text)));
      answer["walks"].push_back(repair_utf8(text));
    }
    answer["mask_us"] = mask_us_;
    return emit(answer);
  }

 private:
  using Clock = std::chrono::steady_clock;
  static double microseconds(Clock::time_point since) {
    return std::chrono::duration<double, std::micro>(Clock::now() - since).count();
  }

  // The one structure that the line gives; a schema or tag as the text of its JSON.
  Result<Structure> structure_of(const Json& line) const {
    using Kind = Structure::Kind;
    const std::pair<const char*, Kind> fields[] = {{"schema", Kind::json_schema},
                                                   {"regex", Kind::regex},
                                                   {"grammar", Kind::lark},
                                                   {"structural_tag", Kind::structural_tag}};
    constexpr const char* kExpected = "give one of schema, regex, grammar, structural_tag";
    Structure structure;
    for (const auto& [name, kind] : fields) {
      std::string text;
      if (kind == Kind::json_schema) {
        text = schema_;
      } else if (kind != Kind::structural_tag) {
        text = TRY(json_string(line, name, "", ""));
      } else if (line.contains(name)) {
        text = line[name].dump();
      }
      if (text.empty()) continue;
      if (structure.kind != Kind::none) return bad_field(name, kExpected);
      structure = {kind, std::move(text), {}, name, {}};
    }
    if (structure.kind == Kind::none) return bad_field("schema", kExpected);
    return structure;
  }

  // The next mask in bits_; a mask without limit has all of them.
  Result<void> fill(TokenMask& mask) {
    bits_.assign((static_cast<size_t>(chat_.service->tokenizer().vocab_size()) + 31) / 32, 0);
    const auto begin = Clock::now();
    const bool limited = TRY(mask.fill(bits_));
    mask_us_.push_back(microseconds(begin));
    if (!limited) std::fill(bits_.begin(), bits_.end(), ~0u);
    return {};
  }
  bool allowed(TokenId id) const { return (bits_[static_cast<size_t>(id) / 32] >> (id % 32) & 1) != 0; }
  bool may_end() const {
    return std::any_of(stops_.begin(), stops_.end(), [this](TokenId id) { return allowed(id); });
  }

  Result<bool> accepts(const TokenMaskFactory& factory, const std::string& text) {
    std::unique_ptr<TokenMask> mask = TRY(factory());
    for (TokenId id : chat_.service->tokenizer().encode(text)) {
      if (mask->is_finished()) return false;
      TRY(fill(*mask));
      if (!allowed(id)) return false;
      TRY(mask->accept(id));
    }
    if (mask->is_finished()) return true;
    TRY(fill(*mask));
    return may_end();
  }

  // Random tokens that are allowed; with time those that close what is open come first. Whether an end came.
  Result<bool> walk(const TokenMaskFactory& factory, uint64_t seed, uint64_t stream, int64_t most, std::string& text) {
    const Tokenizer& tokenizer = chat_.service->tokenizer();
    std::unique_ptr<TokenMask> mask = TRY(factory());
    for (int64_t step = 0; step < most; ++step) {
      if (mask->is_finished()) return true;
      TRY(fill(*mask));
      const double draw = random_uniform(seed, stream, static_cast<uint64_t>(2 * step));
      const double haste = static_cast<double>(step) / static_cast<double>(most);
      if (draw < 0.5 + haste && may_end()) return true;
      std::vector<TokenId> choices;
      if (draw < 0.2 + 2 * haste) {
        for (TokenId id : closers_) {
          if (allowed(id)) choices.push_back(id);
        }
      }
      if (choices.empty()) {
        for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
          if (allowed(id) && !tokenizer.is_special(id)) choices.push_back(id);
        }
      }
      if (choices.empty()) return may_end();
      const TokenId id = choices[random_bits(seed, stream, static_cast<uint64_t>(2 * step + 1)) % choices.size()];
      text += tokenizer.token_bytes(id);
      TRY(mask->accept(id));
    }
    return false;
  }

  OpenChat chat_;
  std::unique_ptr<StructureCompiler> compiler_;
  std::vector<TokenId> stops_, closers_;
  std::string schema_;
  std::vector<uint32_t> bits_;
  std::vector<double> mask_us_;
};

}  // namespace

Result<std::unique_ptr<Probe>> create_structure_probe(const ProbeOptions& options, const Log& log) {
  if (options.what != "structure") return std::unique_ptr<Probe>();
  const bool bare = options.model.ends_with(".json") && file_exists(options.model);
  const std::string path = bare ? options.model : TRY(resolve_model(options.model, model_places_from_environment()));
  OpenChat chat = TRY(open_chat(path, nullptr, log));
  std::unique_ptr<StructureCompiler> compiler =
      TRY(create_structure_compiler(chat.service->tokenizer(), chat.service->stop_tokens()));
  return std::unique_ptr<Probe>(std::make_unique<StructureProbe>(std::move(chat), std::move(compiler)));
}

}  // namespace bise
