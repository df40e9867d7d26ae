#include "chat/mistral_chat.h"

#include "chat/message_import.h"
#include "chat/output_parser.h"
#include "chat/request.h"
#include "chat/validation.h"

namespace bise {
namespace {

class MistralChat final : public ChatService {
 public:
  MistralChat(std::unique_ptr<Tokenizer> tokenizer, MistralTemplate format)
      : tokenizer_(std::move(tokenizer)),
        template_(std::move(format)),
        markers_(mistral_output_markers(*tokenizer_)) {}

  const Tokenizer& tokenizer() const override { return *tokenizer_; }
  std::string format_name() const override {
    return std::string("mistral ") + tekken_version_name(template_.format().version);
  }
  std::vector<TokenId> stop_tokens() const override { return {template_.eos()}; }
  TokenId bos() const override { return template_.bos(); }
  bool supports_images() const override { return template_.format().image.has_value(); }
  std::vector<std::string> reasoning_efforts() const override {
    const auto& effort = template_.format().settings.reasoning_effort;
    return effort ? effort->values : std::vector<std::string>{};
  }

  using ChatService::encode;
  Result<Prompt> encode(const PyJson& body, const ChatRequestOptions& options) const override {
    ImportRules rules;
    rules.strict = options.strict;
    const auto& effort = template_.format().settings.reasoning_effort;
    if (effort) rules.efforts = effort->values;
    if (!options.strict && has_empty_reasoning(body)) {
      // What the reference accepts has the same ids in both modes; it writes [THINK][/THINK] for empty reasoning.
      ChatRequestOptions as_reference = options;
      as_reference.strict = true;
      rules.keep_empty_reasoning = encode(body, as_reference).has_value();
    }
    ChatRequest request = TRY(import_chat_request(body, rules));
    if (options.strict) {
      TRY(validate_request(request, template_.format().version));
    } else if (request.messages.empty()) {
      return refused("message_structure", "messages", "messages holds nothing to answer");
    } else if (request.messages.back().role == Role::assistant) {
      const Message& last = request.messages.back();
      if (!last.prefix || !last.tool_calls.empty()) {
        return refused("message_structure", "messages[" + std::to_string(last.index) + "]",
                       "the last message is an assistant message that is not to be continued; "
                       "there is nothing to answer");
      }
    }
    TRY(validate_tool_choice(request));
    return template_.encode(std::move(request), options);
  }

  std::unique_ptr<ChatStream> start(bool starts_in_thinking, uint64_t seed) const override {
    return create_output_parser(*tokenizer_, markers_, starts_in_thinking, seed);
  }

 private:
  std::unique_ptr<Tokenizer> tokenizer_;
  MistralTemplate template_;
  OutputMarkers markers_;
};

}  // namespace

Result<std::unique_ptr<ChatService>> make_mistral_chat(std::unique_ptr<Tokenizer> tokenizer,
                                                       const MistralFormat& format) {
  MistralTemplate prompt_format = TRY(MistralTemplate::create(*tokenizer, format));
  return std::unique_ptr<ChatService>(
      std::make_unique<MistralChat>(std::move(tokenizer), std::move(prompt_format)));
}

Result<std::unique_ptr<ChatService>> create_mistral_chat(const std::string& tekken_path) {
  std::unique_ptr<Tekken> tekken = TRY(Tekken::open(tekken_path));
  MistralFormat format;
  format.version = tekken->version();
  format.image = tekken->image_config();
  format.settings = tekken->settings().value_or(TekkenSettings{});
  return make_mistral_chat(std::move(tekken), format).with_context(tekken_path);
}

}  // namespace bise
