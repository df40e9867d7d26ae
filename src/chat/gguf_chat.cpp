#include "chat/gguf_chat.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "chat/chatml.h"
#include "chat/mistral_chat.h"
#include "io/gguf.h"
#include "text/gguf_bpe.h"

namespace bise {
namespace {

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// The words in quotes (either kind) of a Jinja list that begins behind `marker`.
std::vector<std::string> quoted_list(std::string_view text, std::string_view marker) {
  std::vector<std::string> words;
  size_t at = text.find(marker);
  if (at == std::string_view::npos) return words;
  std::string_view list = text.substr(at + marker.size());
  list = list.substr(0, list.find(']'));
  while (words.size() < 16) {
    size_t open = list.find_first_of("'\"");
    if (open == std::string_view::npos) break;
    size_t close = list.find(list[open], open + 1);
    if (close == std::string_view::npos) break;
    words.emplace_back(list.substr(open + 1, close - open - 1));
    list.remove_prefix(close + 1);
  }
  return words;
}

// The settings builder, from the two lines that mistral-common's templates have for it:
// `set reasoning_effort = 'none'` and `if reasoning_effort not in ['none', 'high']`.
TekkenSettings find_settings(std::string_view chat_template, const Log& log) {
  TekkenSettings settings;
  TekkenSettings::ReasoningEffort effort;
  effort.values = quoted_list(chat_template, "reasoning_effort not in [");
  std::vector<std::string> fallback = quoted_list(chat_template, "set reasoning_effort = ");
  if (effort.values.empty()) {
    effort.values = {"none", "high"};
    log.warning(
        "the GGUF's chat template does not list the reasoning efforts; none and high are "
        "assumed (a tekken.json beside the model would tell)");
  }
  bool known = !fallback.empty() && std::find(effort.values.begin(), effort.values.end(),
                                              fallback[0]) != effort.values.end();
  effort.default_value = known ? fallback[0] : effort.values[0];
  settings.reasoning_effort = std::move(effort);
  settings.json_schema = contains(chat_template, "json_schema");
  return settings;
}

Result<std::unique_ptr<GgufBpe>> read_tokenizer(const GgufFile& file, const std::string& pre) {
  std::vector<std::string_view> tokens = TRY(file.get_strings("tokenizer.ggml.tokens"));
  std::vector<std::string_view> merges = TRY(file.get_strings("tokenizer.ggml.merges"));
  std::vector<int64_t> wide_types = TRY(file.get_ints("tokenizer.ggml.token_type"));
  std::vector<int32_t> types;
  types.reserve(wide_types.size());
  for (int64_t type : wide_types) {
    if (type < 0 || type > std::numeric_limits<int32_t>::max()) {
      return Error(ErrorCode::corrupt, "tokenizer.ggml.token_type: " + std::to_string(type) +
                                           " is no type; expected 1 to 6");
    }
    types.push_back(static_cast<int32_t>(type));
  }
  return GgufBpe::create(tokens, types, merges, pre);
}

Result<std::unique_ptr<ChatService>> make_chat(const GgufFile& file, const Log& log,
                                               const TekkenImageConfig* image) {
  std::string model = TRY(file.get_string("tokenizer.ggml.model", ""));
  std::string pre = TRY(file.get_string("tokenizer.ggml.pre", ""));
  std::string chat_template = TRY(file.get_string("tokenizer.chat_template", ""));
  if (model != "gpt2") {
    return Error(ErrorCode::unsupported,
                 "tokenizer.ggml.model is \"" + model.substr(0, 40) +
                     "\"; expected \"gpt2\" (byte-level BPE), the only kind this program reads");
  }
  std::unique_ptr<GgufBpe> tokenizer = TRY(read_tokenizer(file, pre));
  if (pre == "tekken") {
    MistralFormat format = find_mistral_format(*tokenizer, chat_template, log);
    if (image != nullptr) format.image = *image;
    return make_mistral_chat(std::move(tokenizer), format);
  }
  if (!chat_template.empty() && !contains(chat_template, "<|im_start|>")) {
    return Error(ErrorCode::unsupported,
                 "tokenizer.chat_template is not ChatML: it has no <|im_start|>. Chat formats this "
                 "program knows are ChatML and, with tekken's vocabulary, Mistral's");
  }
  if (chat_template.empty()) {
    log.warning(file.path() +
                " has no chat template; ChatML without a default system turn is used");
  }
  return make_chatml_chat(std::move(tokenizer), read_chatml_template(chat_template));
}

}  // namespace

MistralFormat find_mistral_format(const Tokenizer& tokenizer, std::string_view chat_template,
                                  const Log& log) {
  auto has = [&tokenizer](const char* name) { return tokenizer.special(name).has_value(); };
  MistralFormat format;
  if (has("[MODEL_SETTINGS]")) {
    format.version = TekkenVersion::v15;
    format.settings = find_settings(chat_template, log);
  } else if (has("[ARGS]")) {
    bool writes_call_ids = contains(chat_template, "[CALL_ID]");
    format.version = writes_call_ids ? TekkenVersion::v11 : TekkenVersion::v13;
    // The two versions have the same special tokens; only the template tells them apart.
    if (!contains(chat_template, "[ARGS]")) {
      log.warning(
          "the GGUF's chat template does not show how tool calls are written, so tokenizer "
          "version v13 is assumed; with v11 prompts with tools would differ (a tekken.json "
          "beside the model would tell)");
    }
  } else {
    format.version = has("[SYSTEM_PROMPT]") ? TekkenVersion::v7 : TekkenVersion::v3;
  }
  return format;
}

Result<std::unique_ptr<ChatService>> create_gguf_chat(const GgufFile& file, const Log& log,
                                                      const TekkenImageConfig* image) {
  return make_chat(file, log, image).with_context(file.path());
}

}  // namespace bise
