// The probes of the word stair: tokenize, encode, parse. A bare tekken.json is enough for them.
#include "app/model_files.h"
#include "app/model_source.h"
#include "app/probe.h"

namespace bise {
namespace {

bool ends_with(const std::string& text, std::string_view end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

class TokenizeProbe : public Probe {
 public:
  explicit TokenizeProbe(OpenChat chat) : chat_(std::move(chat)) {}

  Result<void> answer(const Json& line, const Emit& emit) override {
    TRY(allow_fields(line, {"text", "decode", "keep_special"}));
    const Tokenizer& tokenizer = chat_.service->tokenizer();
    bool has_text = json_has(line, "text"), has_ids = json_has(line, "decode");
    if (has_text == has_ids) return bad_field("text", "give either text or decode");
    if (has_ids) {
      std::vector<TokenId> ids = TRY(token_ids(line, "decode", tokenizer.vocab_size()));
      bool keep = TRY(json_bool(line, "keep_special", false, ""));
      return emit({{"text", tokenizer.decode(ids, keep)}});
    }
    if (json_has(line, "keep_special")) return bad_field("keep_special", "belongs to decode");
    std::string text = TRY(json_string(line, "text", "", ""));
    return emit({{"ids", tokenizer.encode(text)}});
  }

 private:
  OpenChat chat_;
};

class EncodeProbe : public Probe {
 public:
  EncodeProbe(OpenChat chat, ImageProcessing processing)
      : chat_(std::move(chat)), processing_(processing) {}

  const char* raw_member() const override { return "request"; }
  void set_raw(std::string_view raw) override { request_ = raw; }

  Result<void> answer(const Json& line, const Emit& emit) override {
    TRY(allow_fields(line, {"request", "strict"}));
    if (request_.empty())
      return bad_field("request", "expected a chat-completions body").with_kind("malformed");
    ChatRequestOptions options;
    options.strict = TRY(json_bool(line, "strict", false, ""));
    options.allow_files = true;
    options.image_processing = processing_;
    Prompt prompt = TRY(chat_.service->encode(request_, options));
    Json grid = Json::array();
    for (const Prompt::Image& image : prompt.images) grid.push_back({image.columns, image.rows});
    return emit({{"ids", prompt.ids}, {"image_grid", grid}});
  }
  Json error_answer(const Error& error) const override {
    return {{"error", error.kind().empty() ? "request" : error.kind()},
            {"message", error.message()},
            {"param", error.param().empty() ? Json() : Json(error.param())}};
  }

 private:
  OpenChat chat_;
  ImageProcessing processing_;
  std::string request_;
};

Json nullable(const std::string& text) { return text.empty() ? Json() : Json(text); }

// The whole message, as in a plain chat completion.
Json message_of(const std::vector<ChatEvent>& events) {
  std::string content, reasoning, finish_reason;
  Json calls = Json::array();
  std::vector<std::string> arguments;
  for (const ChatEvent& event : events) {
    switch (event.kind) {
      case ChatEvent::Kind::content: content += event.text; break;
      case ChatEvent::Kind::reasoning: reasoning += event.text; break;
      case ChatEvent::Kind::tool_call_begin:
        calls.push_back({{"id", event.call_id},
                         {"type", "function"},
                         {"function", {{"name", event.call_name}, {"arguments", ""}}}});
        arguments.emplace_back();
        break;
      case ChatEvent::Kind::tool_call_arguments:
        arguments.at(static_cast<size_t>(event.call_index)) += event.text;
        break;
      case ChatEvent::Kind::finish: finish_reason = event.finish_reason; break;
    }
  }
  for (size_t i = 0; i < arguments.size(); ++i) calls[i]["function"]["arguments"] = arguments[i];
  return {{"content", nullable(content)},
          {"reasoning_content", nullable(reasoning)},
          {"tool_calls", calls},
          {"finish_reason", finish_reason}};
}

// The same as OpenAI's stream deltas.
Json deltas_of(const std::vector<ChatEvent>& events) {
  Json deltas = Json::array();
  std::string finish_reason;
  deltas.push_back({{"role", "assistant"}});
  for (const ChatEvent& event : events) {
    switch (event.kind) {
      case ChatEvent::Kind::content: deltas.push_back({{"content", event.text}}); break;
      case ChatEvent::Kind::reasoning: deltas.push_back({{"reasoning_content", event.text}}); break;
      case ChatEvent::Kind::tool_call_begin:
        deltas.push_back(
            {{"tool_calls",
              Json::array({{{"index", event.call_index},
                            {"id", event.call_id},
                            {"type", "function"},
                            {"function", {{"name", event.call_name}, {"arguments", ""}}}}})}});
        break;
      case ChatEvent::Kind::tool_call_arguments:
        deltas.push_back(
            {{"tool_calls", Json::array({{{"index", event.call_index},
                                          {"function", {{"arguments", event.text}}}}})}});
        break;
      case ChatEvent::Kind::finish: finish_reason = event.finish_reason; break;
    }
  }
  return {{"deltas", deltas}, {"finish_reason", finish_reason}};
}

class ParseProbe : public Probe {
 public:
  explicit ParseProbe(OpenChat chat) : chat_(std::move(chat)) {}

  Result<void> answer(const Json& line, const Emit& emit) override {
    TRY(allow_fields(line, {"ids", "finish", "start", "stream"}));
    std::vector<TokenId> ids = TRY(token_ids(line, "ids", chat_.service->tokenizer().vocab_size()));
    std::string finish = TRY(json_string(line, "finish", "stop", ""));
    std::string start = TRY(json_string(line, "start", "content", ""));
    bool stream = TRY(json_bool(line, "stream", false, ""));
    if (finish != "stop" && finish != "length")
      return bad_field("finish", "expected stop or length");
    if (start != "content" && start != "think")
      return bad_field("start", "expected content or think");
    std::unique_ptr<ChatStream> parser = chat_.service->start(start == "think", ++lines_);
    std::vector<ChatEvent> events;
    for (TokenId id : ids) {
      for (ChatEvent& event : parser->push(id)) events.push_back(std::move(event));
    }
    for (ChatEvent& event : parser->finish(finish)) events.push_back(std::move(event));
    return emit(stream ? deltas_of(events) : message_of(events));
  }

 private:
  OpenChat chat_;
  uint64_t lines_ = 0;  // seeds the call ids, so that they differ from line to line
};

}  // namespace

Result<std::unique_ptr<Probe>> create_text_probe(const ProbeOptions& options, const Log& log) {
  const std::string& what = options.what;
  if (what != "tokenize" && what != "encode" && what != "parse") return std::unique_ptr<Probe>();
  bool bare = ends_with(options.model, ".json") && file_exists(options.model);
  std::string path =
      bare ? options.model : TRY(resolve_model(options.model, model_places_from_environment()));
  std::optional<ModelConfig> config;
  if (what == "encode" &&
      ends_with(path, ".gguf")) {  // the picture sizes are in the projector file
    Checkpoint checkpoint = TRY(open_checkpoint(path, options.common, log));
    config = TRY(read_model_config(checkpoint, config_options(options.common), log));
  }
  OpenChat chat = TRY(open_chat(path, config && config->vision ? &*config->vision : nullptr, log));
  if (what == "tokenize")
    return std::unique_ptr<Probe>(std::make_unique<TokenizeProbe>(std::move(chat)));
  if (what == "parse") return std::unique_ptr<Probe>(std::make_unique<ParseProbe>(std::move(chat)));
  // Without a checkpoint the tokenizer file's own library is the reference.
  bool hf = !bare && (file_exists(path + "/config.json") || ends_with(path, ".gguf"));
  if (options.common.layout == "mistral") hf = false;
  ImageProcessing processing = image_processing(options.common, hf ? Layout::hf : Layout::mistral);
  return std::unique_ptr<Probe>(std::make_unique<EncodeProbe>(std::move(chat), processing));
}

}  // namespace bise
