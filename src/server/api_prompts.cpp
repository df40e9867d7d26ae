// From the body of a request to token ids: messages with their pictures, texts, ids.
#include <optional>

#include "chat/request.h"
#include "server/api.h"

namespace bise {
namespace {

constexpr size_t kMaxPrompts = 128;

ApiError too_long(size_t prompt, int64_t context) {
  ApiError error = ApiError::invalid("messages",
                                     "This model's maximum context length is " + std::to_string(context) +
                                         " tokens. However, your prompt has " + std::to_string(prompt) +
                                         " tokens, and at least one is needed for the answer. Please shorten the prompt.",
                                     "context_length_exceeded");
  error.limit = context;
  error.actual = static_cast<int64_t>(prompt);
  return error;
}

// What of template arguments is understood; others could change the prompt.
ApiStatus check_template_arguments(const PyJson& body) {
  const PyJson* arguments = body.get("chat_template_kwargs");
  if (arguments == nullptr) return Done{};
  if (arguments->object() == nullptr) {
    return ApiError::invalid("chat_template_kwargs", "chat_template_kwargs must be an object", "invalid_type");
  }
  for (const PyJson::Member& member : *arguments->object()) {
    if (member.key == "reasoning_effort" || member.key == "enable_thinking" || member.value.is_null()) continue;
    const std::string name = "chat_template_kwargs." + member.key;
    return ApiError::unsupported(name, name + " is not supported; known are reasoning_effort and enable_thinking");
  }
  return Done{};
}

ApiError too_many_images(size_t count, int32_t most) {
  ApiError error = ApiError::invalid("messages", "the request has " + std::to_string(count) + " images; at most " + std::to_string(most) +
                                                     " are allowed (--max-images)");
  error.limit = most;
  error.actual = static_cast<int64_t>(count);
  return error;
}

}  // namespace

// Pictures that lie elsewhere are fetched first where that is allowed. Where not, encoding refuses them.
ApiResult<Prompt> Api::encode(const PyJson& body, HttpReply& reply, std::optional<ImageFetcher::Fetched>& fetched) const {
  ChatRequestOptions options = model_.chat_options;
  std::vector<RemoteImage> images;
  if (options_.image_fetcher && model_.process_picture) images = remote_images(body);
  if (images.size() > static_cast<size_t>(options_.max_images)) return too_many_images(images.size(), options_.max_images);
  if (!images.empty()) {
    fetched.emplace(TRY(options_.image_fetcher->fetch(images, reply)));
    options.fetched_images = &fetched->images();
  }
  Result<Prompt> prompt = model_.chat->encode(body, options);
  if (!prompt) return ApiError::from(prompt.error());
  return *std::move(prompt);
}

ApiResult<GenerationPrompt> Api::chat_prompt(const PyJson& body, RequestNotes& notes, HttpReply& reply) const {
  TRY(check_template_arguments(body));
  if (const PyJson* tools = body.get("tools"); tools != nullptr && tools->array() != nullptr && tools->array()->empty()) {
    return ApiError::invalid("tools", "tools is an empty list; leave it out when there are none");
  }
  if (body.get("tools") == nullptr) {
    const PyJson* choice = body.get("tool_choice");
    const bool harmless = choice == nullptr || (choice->string() != nullptr && (*choice->string() == "none" || *choice->string() == "auto"));
    if (!harmless) return ApiError::invalid("tool_choice", "tool_choice asks for a call, but there are no tools");
  }
  if (body.get("continue_final_message") != nullptr) {
    bool both = TRY(bool_field(body, "continue_final_message")).value_or(false) &&
                TRY(bool_field(body, "add_generation_prompt")).value_or(false);
    if (both) return ApiError::invalid("continue_final_message", "continue_final_message and add_generation_prompt cannot both be true");
  }
  if (auto effort = asked_effort(body)) {
    const std::vector<std::string> listed = model_.chat->reasoning_efforts();
    if (listed.empty()) {
      notes.unused.push_back("reasoning_effort");
    } else if (std::string used = mapped_effort(*effort, listed); used != *effort) {
      notes.changed.push_back("reasoning_effort=" + effort->substr(0, 20) + "->" + used);
    }
  }
  std::optional<ImageFetcher::Fetched> fetched;  // counted until its pictures are ready for the model
  ApiResult<Prompt> prompt = encode(body, reply, fetched);
  if (!prompt) return prompt.error();
  GenerationPrompt out;
  if (static_cast<int64_t>(prompt->ids.size()) >= model_.engine->context()) return too_long(prompt->ids.size(), model_.engine->context());
  if (prompt->images.size() > static_cast<size_t>(options_.max_images)) return too_many_images(prompt->images.size(), options_.max_images);
  for (const Prompt::Image& image : prompt->images) {
    if (!model_.process_picture) return ApiError::unsupported("messages", "this model reads no pictures");
    if (image.bytes.size() > kMaxImageBytes) {
      return ApiError::invalid("messages", "an image has " + std::to_string(image.bytes.size()) + " bytes; at most " + std::to_string(kMaxImageBytes) + " are allowed");
    }
    Result<ProcessedImage> picture = model_.process_picture(as_bytes(image.bytes));
    if (!picture) return ApiError::from(picture.error());
    out.images.push_back(*std::move(picture));
  }
  out.ids = std::move(prompt->ids);
  out.starts_in_thinking = prompt->starts_in_thinking;
  return out;
}

ApiResult<std::vector<GenerationPrompt>> Api::text_prompts(const PyJson& body, const GenerationParameters& parameters) const {
  const PyJson* prompt = body.get("prompt");
  if (prompt == nullptr) return ApiError::invalid("prompt", "prompt is missing", "missing_required_parameter");
  std::vector<const PyJson*> items;
  const bool is_list = prompt->array() != nullptr;
  const bool is_ids = is_list && !prompt->array()->empty() && prompt->array()->front().integer() != nullptr;
  if (!is_list || is_ids) {
    items.push_back(prompt);
  } else {
    for (const PyJson& item : *prompt->array()) items.push_back(&item);
  }
  if (items.empty()) return ApiError::invalid("prompt", "prompt is an empty list");
  if (items.size() > kMaxPrompts) {
    return ApiError::invalid("prompt", "prompt is a list of " + std::to_string(items.size()) + "; at most " + std::to_string(kMaxPrompts) + " are taken at once");
  }
  const Tokenizer& tokenizer = model_.chat->tokenizer();
  std::vector<GenerationPrompt> out;
  for (const PyJson* item : items) {
    GenerationPrompt one;
    if (const std::string* text = item->string()) {
      if (parameters.add_special_tokens && model_.chat->bos() >= 0) one.ids.push_back(model_.chat->bos());
      tokenizer.encode(join_surrogates(*text), one.ids);
    } else if (item->array() != nullptr) {
      for (const PyJson& value : *item->array()) {
        std::optional<int64_t> id = whole_number(value);
        if (!id || *id < 0 || *id >= model_.vocab_size) {
          return ApiError::invalid("prompt", "prompt holds " + (id ? "the token id " + std::to_string(*id) : std::string(value.type_name())) +
                                                 "; token ids go from 0 to " + std::to_string(model_.vocab_size - 1));
        }
        one.ids.push_back(static_cast<int32_t>(*id));
      }
    } else {
      return ApiError::invalid("prompt", std::string("prompt holds ") + item->type_name() + "; expected a text, token ids, or a list of either", "invalid_type");
    }
    if (parameters.truncate_prompt) {
      const int64_t room = *parameters.truncate_prompt == -1 ? model_.engine->context() - 1 : *parameters.truncate_prompt;
      if (static_cast<int64_t>(one.ids.size()) > room) one.ids.erase(one.ids.begin(), one.ids.end() - room);
    }
    if (one.ids.empty()) return ApiError::invalid("prompt", "prompt is empty: there is nothing to continue");
    const int64_t length = static_cast<int64_t>(one.ids.size());
    const bool no_answer = parameters.max_tokens_given && parameters.sampling.max_tokens == 0;
    if (length >= model_.engine->context() + (no_answer ? 1 : 0)) {
      ApiError error = too_long(one.ids.size(), model_.engine->context());
      error.param = "prompt";
      return error;
    }
    out.push_back(std::move(one));
  }
  return out;
}

}  // namespace bise
