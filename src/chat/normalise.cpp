#include "chat/normalise.h"

#include <algorithm>
#include <limits>
#include <span>
#include <unordered_map>

#include "chat/request.h"

namespace bise {
namespace {

using Kind = ContentPart::Kind;

// Joins texts that touch: "\n\n" between messages, `chunk_join` between parts of one message. Empty
// texts vanish; an image or thinking part ends a run of text, so the next text starts bare.
std::vector<ContentPart> merge_contents(std::span<Message> messages, std::string_view chunk_join) {
  std::vector<ContentPart> out;
  std::string text;
  bool has_text = false;
  auto flush = [&] {
    if (has_text) out.push_back({Kind::text, std::move(text), true});
    text.clear();
    has_text = false;
  };
  for (Message& message : messages) {
    bool new_message = has_text;
    for (ContentPart& part : message.content) {
      if (part.kind != Kind::text) {
        flush();
        out.push_back(std::move(part));
        continue;
      }
      if (part.text.empty()) continue;
      if (has_text) text += new_message ? std::string_view("\n\n") : chunk_join;
      text += part.text;
      has_text = true;
      new_message = false;
    }
  }
  flush();
  return out;
}

bool is_only_text(const std::vector<ContentPart>& content) {
  return content.empty() || (content.size() == 1 && content[0].kind == Kind::text);
}

std::string text_of(const std::vector<ContentPart>& content) {
  return content.empty() ? std::string() : content[0].text;
}

class Normaliser {
 public:
  explicit Normaliser(TekkenVersion version)
      : version_(version), chunk_join_(version >= TekkenVersion::v15 ? "" : "\n\n") {}

  Result<NormalisedMessages> run(std::vector<Message> messages) {
    if (version_ < TekkenVersion::v7) TRY(collect_system_prompt(messages));
    for (size_t begin = 0; begin < messages.size();) {
      size_t end = begin + 1;
      while (end < messages.size() && messages[end].role == messages[begin].role) ++end;
      TRY(run_of_one_role(std::span(messages).subspan(begin, end - begin)));
      begin = end;
    }
    std::vector<Message>& done = out_.messages;
    bool needs_user =
        done.empty() || (version_ < TekkenVersion::v7 && done.front().role != Role::user);
    if (needs_user) done.insert(done.begin(), Message{});
    return std::move(out_);
  }

 private:
  static std::string place_of(const Message& message) {
    return "messages[" + std::to_string(message.index) + "]";
  }
  Error only_text(const Message& message) const {
    std::string param = place_of(message) + ".content";
    return refused(
        "malformed", param,
        param + " can hold only text in tokenizer version " + tekken_version_name(version_));
  }

  Result<void> collect_system_prompt(const std::vector<Message>& messages) {
    bool first = true;
    for (const Message& message : messages) {
      if (message.role != Role::system || message.content.empty()) continue;
      Message copy = message;
      std::vector<ContentPart> content = merge_contents({&copy, 1}, chunk_join_);
      if (!is_only_text(content)) return only_text(message);
      if (!first) out_.system_prompt += "\n\n";
      out_.system_prompt += text_of(content);
      first = false;
    }
    return {};
  }

  Result<void> run_of_one_role(std::span<Message> run) {
    switch (run.front().role) {
      case Role::system:
        if (version_ < TekkenVersion::v7) return {};
        for (Message& message : run) {
          message.content = merge_contents({&message, 1}, chunk_join_);
          out_.messages.push_back(std::move(message));
        }
        return {};
      case Role::user: {
        Message merged;
        merged.index = run.front().index;
        merged.content = merge_contents(run, chunk_join_);
        out_.messages.push_back(std::move(merged));
        return {};
      }
      case Role::assistant: return assistant(run);
      case Role::tool: return tool_results(run);
    }
    return {};
  }

  Result<void> assistant(std::span<Message> run) {
    Message merged;
    merged.role = Role::assistant;
    merged.index = run.front().index;
    for (Message& message : run) {
      for (size_t i = 0; i < message.tool_calls.size(); ++i) {
        ToolCall& call = message.tool_calls[i];
        Result<std::string> arguments = normalise_json(call.arguments);
        if (!arguments) {
          std::string param =
              place_of(message) + ".tool_calls[" + std::to_string(i) + "].function.arguments";
          return refused("malformed", param, param + ": " + arguments.error().message());
        }
        call.arguments = std::move(arguments).value();
        latest_call_ids_.push_back(call.id);
        merged.tool_calls.push_back(std::move(call));
      }
      merged.prefix |= message.prefix;
    }
    merged.content = merge_contents(run, chunk_join_);
    out_.messages.push_back(std::move(merged));
    return {};
  }

  Result<void> tool_results(std::span<Message> run) {
    for (Message& message : run) {
      message.content = merge_contents({&message, 1}, chunk_join_);
      if (version_ < TekkenVersion::v15 && !is_only_text(message.content)) {
        return only_text(message);
      }
      if (version_ >= TekkenVersion::v7) continue;
      Result<std::string> content = normalise_json(text_of(message.content));
      if (!content) {
        std::string param = place_of(message) + ".content";
        return refused("malformed", param, param + ": " + content.error().message());
      }
      message.content = {{Kind::text, std::move(content).value(), true}};
    }
    if (version_ >= TekkenVersion::v11) sort_by_calls(run);
    for (Message& message : run) out_.messages.push_back(std::move(message));
    latest_call_ids_.clear();
    return {};
  }

  // By the place of the call; unknown ids last; then by the place of the last result with that id.
  void sort_by_calls(std::span<Message> run) const {
    std::unordered_map<std::string, size_t> call_place, result_place;
    for (size_t i = 0; i < latest_call_ids_.size(); ++i) call_place[latest_call_ids_[i]] = i;
    auto id_of = [](const Message& m) { return m.tool_call_id.value_or("null"); };
    for (size_t i = 0; i < run.size(); ++i) result_place[id_of(run[i])] = i;

    std::vector<std::pair<std::pair<size_t, size_t>, size_t>> order;
    for (size_t i = 0; i < run.size(); ++i) {
      std::string id = id_of(run[i]);
      auto found = call_place.find(id);
      size_t place = found == call_place.end() ? std::numeric_limits<size_t>::max() : found->second;
      order.push_back({{place, result_place[id]}, i});
    }
    std::sort(order.begin(), order.end());
    std::vector<Message> sorted;
    sorted.reserve(run.size());
    for (const auto& entry : order) sorted.push_back(std::move(run[entry.second]));
    std::move(sorted.begin(), sorted.end(), run.begin());
  }

  TekkenVersion version_;
  std::string_view chunk_join_;
  // Of the assistant messages since the last results. They pile up when results never come, as in
  // the reference.
  std::vector<std::string> latest_call_ids_;
  NormalisedMessages out_;
};

}  // namespace

Result<NormalisedMessages> normalise_messages(std::vector<Message> messages,
                                              TekkenVersion version) {
  return Normaliser(version).run(std::move(messages));
}

Result<std::string> normalise_json(const std::string& text) {
  if (text.empty()) return std::string("{}");
  Result<PyJson> value = parse_python_json(text);
  if (value) return dump_python_json(*value);
  if (value.error().code() == ErrorCode::corrupt) return text;
  return std::move(value).error();
}

}  // namespace bise
