#include "server/structural_tag.h"

#include <algorithm>
#include <vector>

#include "server/lark_text.h"

namespace bise {
namespace {

constexpr const char* kFreeText = "/(.|\\n)*/";

class TagGrammar {
 public:
  explicit TagGrammar(std::string param) : param_(std::move(param)) {}

  ApiResult<std::string> whole(const PyJson& json) {
    std::string start;
    if (const PyJson* format = json.get("format")) start = TRY(element(*format, "format"));
    else if (json.get("structures") != nullptr) start = TRY(structures(json));
    else return fault("", "needs a format, or structures with triggers");
    return "start: " + start + "\n" + rules_;
  }

 private:
  ApiError fault(const std::string& place, const std::string& what) const {
    return ApiError::invalid(param_, param_ + (place.empty() ? "" : "." + place) + " " + what, "invalid_structure");
  }

  // A rule of its own; its name.
  std::string rule(const std::string& right, const char* attribute = "") {
    const std::string name = "r" + std::to_string(count_++);
    rules_ += name + attribute + ": " + right + "\n";
    return name;
  }
  // Any text up to the first `end`, which belongs to it.
  std::string text_until(const std::vector<std::string>& ends) {
    std::string any;
    for (const std::string& end : ends) any += (any.empty() ? "" : "|") + regex_literal(end);
    return rule(lark_regex("(.|\n)*(" + any + ")"), "[lazy]");
  }

  ApiResult<std::string> string_of(const PyJson& json, const char* name, const std::string& place, bool may_be_empty) const {
    const PyJson* value = json.get(name);
    if (value == nullptr || value->string() == nullptr) return fault(place + "." + name, "must be a string");
    std::string text = join_surrogates(*value->string());
    if (text.empty() && !may_be_empty) return fault(place + "." + name, "is empty");
    return text;
  }
  ApiResult<std::vector<std::string>> strings_of(const PyJson& json, const char* name, const std::string& place) const {
    const PyJson* list = json.get(name);
    std::vector<std::string> out;
    if (list != nullptr && list->string() != nullptr) {
      out.push_back(TRY(string_of(json, name, place, false)));
      return out;
    }
    if (list == nullptr || list->array() == nullptr || list->array()->empty()) return fault(place + "." + name, "must be a list of strings");
    for (const PyJson& item : *list->array()) {
      if (item.string() == nullptr || item.string()->empty()) return fault(place + "." + name, "must hold strings that are not empty");
      out.push_back(join_surrogates(*item.string()));
    }
    return out;
  }
  ApiResult<bool> flag(const PyJson& json, const char* name, const std::string& place) const {
    const PyJson* value = json.get(name);
    if (value == nullptr) return false;
    if (value->boolean() == nullptr) return fault(place + "." + name, "must be true or false");
    return *value->boolean();
  }
  ApiResult<const PyJson::Array*> list_of(const PyJson& json, const char* name, const std::string& place) const {
    const PyJson* list = json.get(name);
    if (list == nullptr || list->array() == nullptr || list->array()->empty()) return fault(place + "." + name, "must be a list that is not empty");
    return list->array();
  }
  ApiStatus allow(const PyJson& json, std::initializer_list<std::string_view> names, const std::string& place) const {
    for (const PyJson::Member& member : *json.object()) {
      if (member.key == "type" || member.value.is_null() || std::find(names.begin(), names.end(), member.key) != names.end()) continue;
      return fault(place + "." + member.key.substr(0, 100), "is not supported");
    }
    return Done{};
  }
  static std::string type_of(const PyJson& json) {
    const PyJson* type = json.get("type");
    return type != nullptr && type->string() != nullptr ? *type->string() : "";
  }

  // The right side for one element of a format.
  ApiResult<std::string> element(const PyJson& json, const std::string& place) {
    if (json.object() == nullptr) return fault(place, "must be an object");
    const std::string type = type_of(json);
    if (type == "const_string") {
      TRY(allow(json, {"value"}, place));
      return lark_string(TRY(string_of(json, "value", place, true)));
    }
    if (type == "json_schema") {
      TRY(allow(json, {"json_schema"}, place));
      const PyJson* schema = json.get("json_schema");
      if (schema == nullptr) return fault(place + ".json_schema", "is missing");
      return rule(TRY(lark_json(dump_python_json(*schema), {}, param_ + "." + place + ".json_schema")));
    }
    if (type == "regex") {
      TRY(allow(json, {"pattern"}, place));
      return rule(lark_regex(TRY(string_of(json, "pattern", place, false))));
    }
    if (type == "any_text") {
      TRY(allow(json, {}, place));
      return rule(kFreeText);
    }
    if (type == "sequence") return sequence(json, place);
    if (type == "or") {
      TRY(allow(json, {"elements"}, place));
      const PyJson::Array& elements = *TRY(list_of(json, "elements", place));
      std::string out;
      for (size_t i = 0; i < elements.size(); ++i) {
        out += (out.empty() ? "(" : " | ") + TRY(element(elements[i], place + ".elements[" + std::to_string(i) + "]"));
      }
      return out + ")";
    }
    if (type == "tag") return tag(json, place, "");
    if (type == "triggered_tags") return triggered(json, place);
    if (type == "tags_with_separator") return separated(json, place);
    return fault(place + ".type",
                 "must be const_string, json_schema, regex, any_text, sequence, or, tag, triggered_tags or tags_with_separator");
  }

  // Free text ends where what follows begins, so something fixed must follow it, or nothing.
  ApiResult<std::string> sequence(const PyJson& json, const std::string& place) {
    TRY(allow(json, {"elements"}, place));
    const PyJson::Array& elements = *TRY(list_of(json, "elements", place));
    std::string out;
    for (size_t i = 0; i < elements.size(); ++i) {
      const std::string here = place + ".elements[" + std::to_string(i) + "]";
      const bool is_text = type_of(elements[i]) == "any_text";
      if (is_text && i + 1 < elements.size()) {
        const PyJson& next = elements[i + 1];
        const std::string next_place = place + ".elements[" + std::to_string(i + 1) + "]", next_type = type_of(next);
        if (next_type == "const_string") {
          const std::string value = TRY(string_of(next, "value", next_place, false));
          out += " " + text_until({value});
        } else if (next_type == "tag") {
          const std::string begin = TRY(string_of(next, "begin", next_place, false));
          const std::string rest = TRY(tag(next, next_place, begin));
          out += " " + text_until({begin}) + " " + rest;
        } else {
          return fault(here, "is any_text, behind which only a const_string or a tag can come");
        }
        ++i;
        continue;
      }
      out += " " + TRY(element(elements[i], here));
    }
    return "(" + out + ")";
  }

  // `read`: what of its begin was read already.
  ApiResult<std::string> tag(const PyJson& json, const std::string& place, const std::string& read) {
    if (json.object() == nullptr) return fault(place, "must be an object");
    TRY(allow(json, {"begin", "content", "end"}, place));
    const std::string begin = TRY(string_of(json, "begin", place, true));
    const PyJson* content = json.get("content");
    if (content == nullptr) return fault(place + ".content", "is missing");
    const PyJson* end = json.get("end");
    std::vector<std::string> ends;
    if (end != nullptr && !(end->string() != nullptr && end->string()->empty())) ends = TRY(strings_of(json, "end", place));
    std::string out = begin.size() > read.size() ? lark_string(begin.substr(read.size())) + " " : "";
    if (type_of(*content) == "any_text" && !ends.empty()) return "(" + out + text_until(ends) + ")";
    out += TRY(element(*content, place + ".content"));
    std::string any;
    for (const std::string& text : ends) any += (any.empty() ? "" : " | ") + lark_string(text);
    return "(" + out + (any.empty() ? "" : " (" + any + ")") + ")";
  }

  struct Trigger {
    std::string text, tags;  // the right sides of its tags behind it
  };
  std::string dispatched(const std::vector<Trigger>& triggers, bool at_least_one, bool stop_after_first) {
    std::string any;
    for (const Trigger& trigger : triggers) {
      if (!trigger.tags.empty()) any += (any.empty() ? "" : " | ") + text_until({trigger.text}) + " (" + trigger.tags + ")";
    }
    const std::string one = rule(any), text = rule(kFreeText);
    if (stop_after_first) return at_least_one ? one : "(" + one + " | " + text + ")";
    return one + (at_least_one ? "+ " : "* ") + text;
  }
  ApiStatus add_tag(std::vector<Trigger>& triggers, const PyJson& json, const std::string& place) {
    if (json.object() == nullptr) return fault(place, "must be an object");
    const std::string begin = TRY(string_of(json, "begin", place, false));
    Trigger* best = nullptr;  // the shortest: it is complete first
    for (Trigger& trigger : triggers) {
      if (begin.starts_with(trigger.text) && (best == nullptr || trigger.text.size() < best->text.size())) best = &trigger;
    }
    if (best == nullptr) return fault(place + ".begin", "begins with none of the triggers");
    best->tags += (best->tags.empty() ? "" : " | ") + TRY(tag(json, place, best->text));
    return Done{};
  }
  ApiResult<std::vector<Trigger>> triggers_of(const PyJson& json, const std::string& place) const {
    std::vector<Trigger> out;
    std::vector<std::string> texts = TRY(strings_of(json, "triggers", place));
    for (std::string& text : texts) out.push_back({std::move(text), ""});
    return out;
  }

  ApiResult<std::string> triggered(const PyJson& json, const std::string& place) {
    TRY(allow(json, {"triggers", "tags", "at_least_one", "stop_after_first"}, place));
    std::vector<Trigger> triggers = TRY(triggers_of(json, place));
    const PyJson::Array& tags = *TRY(list_of(json, "tags", place));
    for (size_t i = 0; i < tags.size(); ++i) TRY(add_tag(triggers, tags[i], place + ".tags[" + std::to_string(i) + "]"));
    const bool at_least_one = TRY(flag(json, "at_least_one", place)), stop = TRY(flag(json, "stop_after_first", place));
    return dispatched(triggers, at_least_one, stop);
  }

  ApiResult<std::string> separated(const PyJson& json, const std::string& place) {
    TRY(allow(json, {"tags", "separator", "at_least_one", "stop_after_first"}, place));
    const PyJson::Array& tags = *TRY(list_of(json, "tags", place));
    const std::string separator = TRY(string_of(json, "separator", place, true));
    std::string any;
    for (size_t i = 0; i < tags.size(); ++i) {
      any += (any.empty() ? "" : " | ") + TRY(tag(tags[i], place + ".tags[" + std::to_string(i) + "]", ""));
    }
    const std::string one = rule(any);
    std::string out = one;
    if (!TRY(flag(json, "stop_after_first", place))) out += " (" + lark_string(separator) + " " + one + ")*";
    const bool at_least_one = TRY(flag(json, "at_least_one", place));
    return "(" + out + (at_least_one ? ")" : ")?");
  }

  // The older form: tags of {begin, schema, end}.
  ApiResult<std::string> structures(const PyJson& json) {
    TRY(allow(json, {"structures", "triggers"}, ""));
    std::vector<Trigger> triggers = TRY(triggers_of(json, "triggers"));
    const PyJson::Array& list = *TRY(list_of(json, "structures", "structures"));
    for (size_t i = 0; i < list.size(); ++i) {
      const std::string place = "structures[" + std::to_string(i) + "]";
      if (list[i].object() == nullptr) return fault(place, "must be an object");
      TRY(allow(list[i], {"begin", "schema", "end"}, place));
      const PyJson* schema = list[i].get("schema");
      if (schema == nullptr) return fault(place + ".schema", "is missing");
      PyJson::Object content, as_tag;
      content.push_back({"type", PyJson(std::string("json_schema"))});
      content.push_back({"json_schema", *schema});
      for (const char* name : {"begin", "end"}) {
        if (const PyJson* value = list[i].get(name)) as_tag.push_back({name, *value});
      }
      as_tag.push_back({"content", PyJson(std::move(content))});
      TRY(add_tag(triggers, PyJson(std::move(as_tag)), place));
    }
    return dispatched(triggers, false, false);
  }

  const std::string param_;
  std::string rules_;
  int count_ = 0;
};

}  // namespace

ApiResult<std::string> structural_tag_grammar(const std::string& json, const std::string& param) {
  PyJsonLimits limits;
  limits.max_depth = 64;
  Result<PyJson> parsed = parse_python_json(json, limits);
  if (!parsed) return ApiError::invalid(param, param + " is not JSON: " + parsed.error().message());
  if (parsed->object() == nullptr) return ApiError::invalid(param, param + " must be an object");
  return TagGrammar(param).whole(*parsed);
}

}  // namespace bise
