#include "chat/chat_template.h"

#include <algorithm>

#include "base/bytes.h"
#include "chat/image_url.h"
#include "chat/normalise.h"
#include "chat/request.h"

namespace bise {
namespace {

using Kind = ContentPart::Kind;

std::string place_of(const Message& message) {
  return "messages[" + std::to_string(message.index) + "]";
}

std::string tools_json(const std::vector<Tool>& tools) {
  std::string out = "[";
  for (const Tool& tool : tools) {
    if (out.size() > 1) out += ", ";
    out += "{\"type\": \"function\", \"function\": {\"name\": ";
    append_python_json_string(out, tool.name);
    out += ", \"description\": ";
    append_python_json_string(out, tool.description);
    out += ", \"parameters\": " + dump_python_json(tool.parameters) + "}}";
  }
  return out + "]";
}

// The arguments as the model writes them: normalised JSON, or one JSON string when they are not
// JSON.
std::string arguments_json(const ToolCall& call) {
  if (parse_python_json(call.arguments)) return call.arguments;
  std::string out;
  append_python_json_string(out, call.arguments);
  return out;
}

// v3 and v7: all calls of a message in one list.
std::string calls_json(const std::vector<ToolCall>& calls) {
  std::string out = "[";
  for (const ToolCall& call : calls) {
    if (out.size() > 1) out += ", ";
    out += "{\"name\": ";
    append_python_json_string(out, call.name);
    out += ", \"arguments\": " + arguments_json(call);
    if (!call.id.empty() && call.id != "null") {
      out += ", \"id\": ";
      append_python_json_string(out, call.id);
    }
    out += "}";
  }
  return out + "]";
}

}  // namespace

class PromptWriter {
 public:
  PromptWriter(const MistralTemplate& format, const ChatRequest& request,
               const ChatRequestOptions& options)
      : t_(format), request_(request), options_(options), version_(format.format_.version) {}

  Result<Prompt> run(const NormalisedMessages& normalised) {
    const std::vector<Message>& messages = normalised.messages;
    size_t first_user = messages.size(), last_user = messages.size();
    for (size_t i = 0; i < messages.size(); ++i) {
      if (messages[i].role != Role::user) continue;
      if (first_user == messages.size()) first_user = i;
      last_user = i;
    }
    size_t tools_at = version_ >= TekkenVersion::v13 ? first_user : last_user;
    id(t_.bos_);
    for (size_t i = 0; i < messages.size(); ++i) {
      const Message& message = messages[i];
      switch (message.role) {
        case Role::system: TRY(system(message)); break;
        case Role::user:
          if (i == tools_at) TRY(tools_and_settings());
          TRY(user(message, i == last_user ? normalised.system_prompt : std::string()));
          break;
        case Role::assistant: TRY(assistant(message)); break;
        case Role::tool: TRY(tool(message)); break;
      }
    }
    return std::move(prompt_);
  }

 private:
  void id(TokenId token) { prompt_.ids.push_back(token); }
  void text(std::string_view text) {
    if (text.find('\xED') == std::string_view::npos) {
      t_.tokenizer_->encode(text, prompt_.ids);
    } else {
      t_.tokenizer_->encode(join_surrogates(text), prompt_.ids);
    }
  }

  Result<void> tools_and_settings() {
    if (!request_.tools.empty()) {
      id(t_.tools_);
      text(tools_json(request_.tools));
      id(t_.tools_end_);
    }
    if (version_ < TekkenVersion::v15) return {};
    std::string settings = TRY(settings_json());
    if (settings.empty()) return {};
    id(t_.settings_);
    text(settings);
    id(t_.settings_end_);
    return {};
  }

  // The settings that are set, by name; empty when there are none.
  Result<std::string> settings_json() {
    std::string out;
    const TekkenSettings& known = t_.format_.settings;
    using Format = ResponseFormat::Kind;
    if (known.json_schema && request_.response_format.kind != Format::text) {
      out += "{\"json_schema\": ";
      out += request_.response_format.kind == Format::json_schema
                 ? dump_python_json(request_.response_format.schema)
                 : "{\"anyOf\": [{\"type\": \"object\"}, {\"type\": \"array\"}]}";
    }
    if (known.reasoning_effort) {
      const std::string& effort =
          request_.reasoning_effort.value_or(known.reasoning_effort->default_value);
      out += out.empty() ? "{\"reasoning_effort\": " : ", \"reasoning_effort\": ";
      append_python_json_string(out, effort);
    }
    return out.empty() ? out : out + "}";
  }

  Result<void> system(const Message& message) {
    id(t_.system_);
    for (size_t i = 0; i < message.content.size(); ++i) {
      if (message.content[i].kind == Kind::thinking && version_ >= TekkenVersion::v15) {
        return refused(
            "tokenizer", part_place(message, i),
            part_place(message, i) + " is a thinking part; system messages of v15 cannot hold one");
      }
      TRY(part(message, i));
    }
    id(t_.system_end_);
    return {};
  }

  Result<void> user(const Message& message, const std::string& system_prompt) {
    id(t_.inst_);
    const std::vector<ContentPart>& parts = message.content;
    bool has_only_text = parts.empty() || (parts.size() == 1 && parts.front().kind == Kind::text);
    if (!system_prompt.empty() && has_only_text) {
      text(system_prompt + "\n\n" + (parts.empty() ? std::string() : parts.front().text));
      id(t_.inst_end_);
      return {};
    }
    if (!system_prompt.empty()) text(system_prompt + "\n\n");
    // A single image behind nothing but text goes in front of it.
    bool image_first = parts.size() >= 2 && parts.back().kind == Kind::image &&
                       std::all_of(parts.begin(), parts.end() - 1,
                                   [](const ContentPart& p) { return p.kind == Kind::text; });
    if (image_first) TRY(part(message, parts.size() - 1));
    for (size_t i = 0; i + (image_first ? 1 : 0) < parts.size(); ++i) TRY(part(message, i));
    id(t_.inst_end_);
    return {};
  }

  Result<void> assistant(const Message& message) {
    if (message.content.empty() && message.tool_calls.empty()) {
      return refused("tokenizer", place_of(message),
                     place_of(message) + " has neither content nor tool_calls");
    }
    const std::vector<ContentPart>& parts = message.content;
    if (version_ < TekkenVersion::v7 && !parts.empty() && !message.tool_calls.empty()) {
      return refused("malformed", place_of(message),
                     place_of(message) + " has content and tool_calls; tokenizer version " +
                         std::string(tekken_version_name(version_)) + " has no form for both");
    }
    bool ends_in_thinking = false;
    if (parts.size() == 1 && parts.front().kind == Kind::text) {
      std::string_view stripped = parts.front().text;
      stripped = stripped.substr(0, stripped.find_last_not_of(' ') + 1);
      text(stripped);
    } else {
      for (size_t i = 0; i < parts.size(); ++i) TRY(part(message, i));
      ends_in_thinking =
          !parts.empty() && parts.back().kind == Kind::thinking && !parts.back().closed;
    }
    if (!message.tool_calls.empty()) {
      calls(message);
      ends_in_thinking = false;
    }
    if (message.prefix) {
      prompt_.starts_in_thinking = ends_in_thinking;
    } else {
      id(t_.eos_);
    }
    return {};
  }

  void calls(const Message& message) {
    if (version_ < TekkenVersion::v11) {
      id(t_.calls_);
      text(calls_json(message.tool_calls));
      return;
    }
    for (const ToolCall& call : message.tool_calls) {
      id(t_.calls_);
      text(call.name);
      if (version_ == TekkenVersion::v11 && !call.id.empty() && call.id != "null") {
        id(t_.call_id_);
        text(call.id);
      }
      id(t_.args_);
      text(arguments_json(call));
    }
  }

  Result<void> tool(const Message& message) {
    std::string call_id = message.tool_call_id.value_or("null");
    id(t_.results_);
    if (version_ < TekkenVersion::v7) {
      // One JSON object; a result that is JSON itself stands in it as such.
      ToolCall as_call{"", "", message.content.empty() ? "" : message.content.front().text};
      std::string json = "{\"content\": " + arguments_json(as_call) + ", \"call_id\": ";
      append_python_json_string(json, call_id);
      text(json + "}");
    } else {
      if (version_ < TekkenVersion::v13) {
        text(call_id);
        id(t_.content_);
      }
      for (size_t i = 0; i < message.content.size(); ++i) TRY(part(message, i));
    }
    id(t_.results_end_);
    return {};
  }

  static std::string part_place(const Message& message, size_t i) {
    return place_of(message) + ".content[" + std::to_string(i) + "]";
  }

  Result<void> part(const Message& message, size_t i) {
    const ContentPart& part = message.content[i];
    switch (part.kind) {
      case Kind::text: text(part.text); return {};
      case Kind::thinking: return thinking(part, part_place(message, i));
      case Kind::image: return image(part, part_place(message, i));
      case Kind::audio: break;
    }
    return refused("malformed", part_place(message, i),
                   part_place(message, i) + " is audio, which this model cannot hear");
  }

  Result<void> thinking(const ContentPart& part, const std::string& place) {
    if (version_ < TekkenVersion::v13) {
      return refused("tokenizer", place,
                     place + " is a thinking part; tokenizer version " +
                         std::string(tekken_version_name(version_)) + " has no form for it");
    }
    if (t_.think_ < 0 || t_.think_end_ < 0) {
      return refused("malformed", place,
                     place + " is a thinking part; this tokenizer has no [THINK] token");
    }
    id(t_.think_);
    text(part.text);
    if (part.closed) id(t_.think_end_);
    return {};
  }

  Result<void> image(const ContentPart& part, const std::string& place) {
    if (!t_.format_.image) {
      return refused("malformed", place, place + " is an image; this model takes text only");
    }
    const TekkenImageConfig& config = *t_.format_.image;
    const ImageSources sources{options_.allow_files, options_.file_root, options_.image_limits.max_bytes, options_.fetched_images};
    std::string bytes = TRY(load_image_url(part.text, sources, place));
    Result<ImageSize> size = stored_or_turned_size(bytes);
    if (!size) return refused("malformed", place, place + ": " + size.error().message());
    int32_t unit = config.patch_size * config.spatial_merge_size;
    ImageSize target = target_size(*size, config.max_image_size, unit, options_.image_processing);
    Prompt::Image slot;
    slot.bytes = std::move(bytes);
    slot.first = static_cast<int32_t>(prompt_.ids.size());
    slot.rows = target.height / unit;
    slot.columns = target.width / unit;
    for (int32_t row = 0; row < slot.rows; ++row) {
      prompt_.ids.insert(prompt_.ids.end(), static_cast<size_t>(slot.columns), t_.image_);
      id(row + 1 < slot.rows ? t_.image_break_ : t_.image_end_);
    }
    prompt_.images.push_back(std::move(slot));
    return {};
  }

  // mistral-common takes the picture as stored; transformers turns it by its EXIF data first, and
  // only decoding tells for sure. Pictures without a mark of such data need only their header.
  Result<ImageSize> stored_or_turned_size(const std::string& bytes) const {
    bool may_turn = false;
    for (const char* mark : {"Exif", "eXIf", "EXIF"}) {  // JPEG, PNG, WebP
      may_turn |= bytes.find(mark) != std::string::npos;
    }
    if (options_.image_processing == ImageProcessing::torch && may_turn) {
      RgbImage turned =
          TRY(decode_image(as_bytes(bytes), ImageProcessing::torch, options_.image_limits));
      return ImageSize{turned.width, turned.height};
    }
    return image_size(as_bytes(bytes), options_.image_limits);
  }

  const MistralTemplate& t_;
  const ChatRequest& request_;
  const ChatRequestOptions& options_;
  TekkenVersion version_;
  Prompt prompt_;
};

Result<MistralTemplate> MistralTemplate::create(const Tokenizer& tokenizer,
                                                const MistralFormat& format) {
  MistralTemplate out(tokenizer);
  out.format_ = format;
  struct Need {
    const char* name;
    TokenId* id;
    bool needed;
  };
  TekkenVersion version = format.version;
  bool v7 = version >= TekkenVersion::v7;
  bool v11 = version >= TekkenVersion::v11;
  bool v15 = version >= TekkenVersion::v15;
  bool image = format.image.has_value();
  const Need needs[] = {
      {"<s>", &out.bos_, true},
      {"</s>", &out.eos_, true},
      {"[INST]", &out.inst_, true},
      {"[/INST]", &out.inst_end_, true},
      {"[AVAILABLE_TOOLS]", &out.tools_, true},
      {"[/AVAILABLE_TOOLS]", &out.tools_end_, true},
      {"[TOOL_RESULTS]", &out.results_, true},
      {"[/TOOL_RESULTS]", &out.results_end_, true},
      {"[TOOL_CALLS]", &out.calls_, true},
      {"[SYSTEM_PROMPT]", &out.system_, v7},
      {"[/SYSTEM_PROMPT]", &out.system_end_, v7},
      {"[TOOL_CONTENT]", &out.content_, v7},
      {"[ARGS]", &out.args_, v11},
      {"[CALL_ID]", &out.call_id_, v11},
      {"[THINK]", &out.think_, false},
      {"[/THINK]", &out.think_end_, false},
      {"[MODEL_SETTINGS]", &out.settings_, v15},
      {"[/MODEL_SETTINGS]", &out.settings_end_, v15},
      {"[IMG]", &out.image_, image},
      {"[IMG_BREAK]", &out.image_break_, image},
      {"[IMG_END]", &out.image_end_, image},
  };
  for (const Need& need : needs) {
    std::optional<TokenId> id = tokenizer.special(need.name);
    if (id) {
      *need.id = *id;
    } else if (need.needed) {
      return Error(ErrorCode::corrupt, std::string("the tokenizer lacks the control token ") +
                                           need.name + ", which version " +
                                           tekken_version_name(version) + " needs");
    }
  }
  return out;
}

Result<Prompt> MistralTemplate::encode(ChatRequest request,
                                       const ChatRequestOptions& options) const {
  NormalisedMessages messages =
      TRY(normalise_messages(std::move(request.messages), format_.version));
  if (request.reasoning_effort && format_.settings.reasoning_effort) {
    const std::vector<std::string>& listed = format_.settings.reasoning_effort->values;
    if (std::find(listed.begin(), listed.end(), *request.reasoning_effort) == listed.end()) {
      std::string words;
      for (const std::string& word : listed) words += (words.empty() ? "" : ", ") + word;
      return refused("request", "reasoning_effort",
                     "reasoning_effort is " + *request.reasoning_effort + "; this model takes " +
                         (words.empty() ? "none" : words));
    }
  }
  return PromptWriter(*this, request, options).run(messages);
}

}  // namespace bise
