#include "chat/chatml.h"

#include <utility>

#include "chat/output_parser.h"
#include "chat/request.h"

namespace bise {
namespace {

class ChatmlChat final : public ChatService {
 public:
  ChatmlChat(std::unique_ptr<Tokenizer> tokenizer, ChatmlFormat format, TokenId turn_start,
             TokenId turn_end)
      : tokenizer_(std::move(tokenizer)),
        format_(std::move(format)),
        turn_start_(turn_start),
        turn_end_(turn_end),
        document_end_(tokenizer_->special("<|endoftext|>")) {}

  const Tokenizer& tokenizer() const override { return *tokenizer_; }
  std::string format_name() const override { return "chatml"; }
  std::vector<TokenId> stop_tokens() const override {
    std::vector<TokenId> tokens = {turn_end_};
    if (document_end_) tokens.push_back(*document_end_);
    return tokens;
  }
  TokenId bos() const override { return -1; }  // <|im_start|> is named so, but never added
  bool supports_images() const override { return false; }
  std::vector<std::string> reasoning_efforts() const override { return {}; }

  using ChatService::encode;
  Result<Prompt> encode(const PyJson& body, const ChatRequestOptions& options) const override {
    ImportRules rules;
    rules.strict = options.strict;
    ChatRequest request = TRY(import_chat_request(body, rules));
    if (!request.tools.empty()) {
      return refused("tool", "tools", "this model's chat format (ChatML) knows no tools");
    }
    Prompt prompt;
    bool needs_system = !request.messages.empty() && request.messages[0].role != Role::system;
    if (needs_system && format_.default_system) {
      append_turn("system", *format_.default_system, prompt.ids);
    }
    for (const Message& message : request.messages) {
      std::string text = TRY(plain_text(message));
      if (message.prefix) {  // the last one: the answer goes on from here
        open_turn(role_name(message.role), text, prompt.ids);
        return prompt;
      }
      append_turn(role_name(message.role), text, prompt.ids);
    }
    open_turn("assistant", "", prompt.ids);
    return prompt;
  }

  std::unique_ptr<ChatStream> start(bool starts_in_thinking, uint64_t seed) const override {
    OutputMarkers markers;
    markers.eos = turn_end_;
    markers.other_eos = document_end_;
    return create_output_parser(*tokenizer_, markers, starts_in_thinking, seed);
  }

 private:
  void open_turn(const char* role, const std::string& text, std::vector<TokenId>& ids) const {
    ids.push_back(turn_start_);
    tokenizer_->encode(role + ("\n" + text), ids);
  }
  void append_turn(const char* role, const std::string& text, std::vector<TokenId>& ids) const {
    open_turn(role, text, ids);
    ids.push_back(turn_end_);
    tokenizer_->encode("\n", ids);
  }

  static Result<std::string> plain_text(const Message& message) {
    std::string place = "messages[" + std::to_string(message.index) + "]";
    if (message.role == Role::tool || !message.tool_calls.empty()) {
      std::string field = message.role == Role::tool ? ".role" : ".tool_calls";
      return refused(message.role == Role::tool ? "tool_message" : "assistant_message",
                     place + field,
                     place + field + ": this model's chat format (ChatML) knows no tools");
    }
    std::string text;
    for (size_t i = 0; i < message.content.size(); ++i) {
      const ContentPart& part = message.content[i];
      if (part.kind == ContentPart::Kind::text) {
        text += part.text;
        continue;
      }
      const char* what = part.kind == ContentPart::Kind::image      ? "pictures"
                         : part.kind == ContentPart::Kind::thinking ? "reasoning"
                                                                    : "audio";
      return refused(
          message.role == Role::assistant ? "assistant_message" : "user_message",
          place + ".content[" + std::to_string(i) + "]",
          place + ": this model's chat format (ChatML) knows no " + what + "; send text only");
    }
    return join_surrogates(text);
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  ChatmlFormat format_;
  TokenId turn_start_, turn_end_;
  std::optional<TokenId> document_end_;
};

}  // namespace

ChatmlFormat read_chatml_template(std::string_view chat_template) {
  constexpr std::string_view kOpen = "'<|im_start|>system", kClose = "<|im_end|>";
  size_t first = chat_template.find(kOpen);
  if (first == std::string_view::npos) return {};
  std::string_view rest = chat_template.substr(first + kOpen.size());
  // Jinja takes a newline inside a literal as it stands or as an escape.
  if (rest.starts_with("\n")) rest.remove_prefix(1);
  else if (rest.starts_with("\\n")) rest.remove_prefix(2);
  else return {};
  rest = rest.substr(0, rest.find(kClose));
  // A literal that ends before <|im_end|> is put together from variables: not a default text.
  if (rest.empty() || rest.find('\'') != std::string_view::npos) return {};
  std::string text;
  for (size_t i = 0; i < rest.size(); ++i) {
    bool is_newline = rest[i] == '\\' && i + 1 < rest.size() && rest[i + 1] == 'n';
    text += is_newline ? '\n' : rest[i];
    if (is_newline) ++i;
  }
  return {text};
}

Result<std::unique_ptr<ChatService>> make_chatml_chat(std::unique_ptr<Tokenizer> tokenizer,
                                                      ChatmlFormat format) {
  std::optional<TokenId> start = tokenizer->special("<|im_start|>");
  std::optional<TokenId> end = tokenizer->special("<|im_end|>");
  if (!start || !end) {
    return Error(ErrorCode::unsupported,
                 "the vocabulary has no special tokens <|im_start|> and <|im_end|>, so ChatML "
                 "cannot be written with it");
  }
  return std::unique_ptr<ChatService>(
      std::make_unique<ChatmlChat>(std::move(tokenizer), std::move(format), *start, *end));
}

}  // namespace bise
