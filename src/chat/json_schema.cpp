#include "chat/json_schema.h"

#include <cmath>
#include <unordered_set>

namespace bise {
namespace {

using Fault = std::optional<SchemaFault>;

Fault fault(std::string expected) { return SchemaFault{"", std::move(expected)}; }

// Puts the place in front on the way up, so that sound schemas never pay for paths.
Fault at_key(Fault inner, const std::string& key) {
  if (inner) inner->path = "." + key.substr(0, 80) + inner->path;
  return inner;
}

// The forms that values of keywords take.
enum class Form {
  schema,
  schema_list,
  schema_or_list,
  schema_map,
  dependencies,
  text,
  text_list,
  boolean,
  any_list,
  number,
  positive_number,
  count,
  type,
};

struct Keyword {
  const char* name;
  Form form;
};
constexpr Keyword kKeywords[] = {
    {"$id", Form::text},
    {"$schema", Form::text},
    {"$ref", Form::text},
    {"$comment", Form::text},
    {"title", Form::text},
    {"description", Form::text},
    {"readOnly", Form::boolean},
    {"examples", Form::any_list},
    {"multipleOf", Form::positive_number},
    {"maximum", Form::number},
    {"exclusiveMaximum", Form::number},
    {"minimum", Form::number},
    {"exclusiveMinimum", Form::number},
    {"maxLength", Form::count},
    {"minLength", Form::count},
    {"pattern", Form::text},
    {"additionalItems", Form::schema},
    {"items", Form::schema_or_list},
    {"maxItems", Form::count},
    {"minItems", Form::count},
    {"uniqueItems", Form::boolean},
    {"contains", Form::schema},
    {"maxProperties", Form::count},
    {"minProperties", Form::count},
    {"required", Form::text_list},
    {"additionalProperties", Form::schema},
    {"definitions", Form::schema_map},
    {"properties", Form::schema_map},
    {"patternProperties", Form::schema_map},
    {"dependencies", Form::dependencies},
    {"propertyNames", Form::schema},
    {"enum", Form::any_list},
    {"type", Form::type},
    {"format", Form::text},
    {"contentMediaType", Form::text},
    {"contentEncoding", Form::text},
    {"if", Form::schema},
    {"then", Form::schema},
    {"else", Form::schema},
    {"allOf", Form::schema_list},
    {"anyOf", Form::schema_list},
    {"oneOf", Form::schema_list},
    {"not", Form::schema},
};

bool is_number(const PyJson& value) { return value.integer() || value.real(); }

bool is_count(const PyJson& value) {
  if (const PyJson::Integer* i = value.integer()) return i->digits.front() != '-';
  const double* d = value.real();
  return d && std::isfinite(*d) && std::trunc(*d) == *d && *d >= 0;
}

bool is_positive(const PyJson& value) {
  if (const PyJson::Integer* i = value.integer()) {
    return i->digits.front() != '-' && i->digits != "0";
  }
  const double* d = value.real();
  return d && !(*d <= 0);
}

bool is_simple_type(const PyJson& value) {
  const std::string* word = value.string();
  if (word == nullptr) return false;
  for (const char* type : {"array", "boolean", "integer", "null", "number", "object", "string"}) {
    if (*word == type) return true;
  }
  return false;
}

bool are_distinct_strings(const PyJson& value) {
  if (value.array() == nullptr) return false;
  std::unordered_set<std::string_view> seen;
  for (const PyJson& item : *value.array()) {
    if (item.string() == nullptr || !seen.insert(*item.string()).second) return false;
  }
  return true;
}

bool is_type(const PyJson& value) {
  if (value.array() == nullptr) return is_simple_type(value);
  if (value.array()->empty() || !are_distinct_strings(value)) return false;
  for (const PyJson& item : *value.array()) {
    if (!is_simple_type(item)) return false;
  }
  return true;
}

Fault check_schema(const PyJson& schema);

Fault check_list(const PyJson& list) {
  if (list.array() == nullptr || list.array()->empty()) {
    return fault("expected a list of schemas that is not empty");
  }
  for (size_t i = 0; i < list.array()->size(); ++i) {
    if (Fault inner = check_schema((*list.array())[i])) {
      inner->path = "[" + std::to_string(i) + "]" + inner->path;
      return inner;
    }
  }
  return {};
}

Fault check_map(const PyJson& map, bool or_names) {
  if (map.object() == nullptr) return fault("expected an object of schemas");
  for (const PyJson::Member& member : *map.object()) {
    if (or_names && are_distinct_strings(member.value)) continue;
    if (Fault inner = check_schema(member.value)) return at_key(std::move(inner), member.key);
  }
  return {};
}

Fault check_keyword(Form form, const PyJson& value) {
  bool ok = true;
  const char* expected = "";
  switch (form) {
    case Form::schema: return check_schema(value);
    case Form::schema_list: return check_list(value);
    case Form::schema_or_list:
      return value.array() != nullptr ? check_list(value) : check_schema(value);
    case Form::schema_map: return check_map(value, false);
    case Form::dependencies: return check_map(value, true);
    case Form::text: ok = value.string(), expected = "expected a string"; break;
    case Form::text_list:
      ok = are_distinct_strings(value), expected = "expected a list of distinct strings";
      break;
    case Form::boolean: ok = value.boolean(), expected = "expected true or false"; break;
    case Form::any_list: ok = value.array(), expected = "expected a list"; break;
    case Form::number: ok = is_number(value), expected = "expected a number"; break;
    case Form::positive_number:
      ok = is_positive(value), expected = "expected a number above 0";
      break;
    case Form::count: ok = is_count(value), expected = "expected a whole number from 0 up"; break;
    case Form::type:
      ok = is_type(value);
      expected =
          "expected array, boolean, integer, null, number, object, string, or a list of "
          "distinct ones";
      break;
  }
  return ok ? Fault() : fault(expected);
}

Fault check_schema(const PyJson& schema) {
  if (schema.boolean() != nullptr) return {};
  if (schema.object() == nullptr) return fault("expected an object, true or false");
  for (const PyJson::Member& member : *schema.object()) {
    for (const Keyword& keyword : kKeywords) {
      if (member.key != keyword.name) continue;
      if (Fault inner = check_keyword(keyword.form, member.value)) {
        return at_key(std::move(inner), member.key);
      }
    }
  }
  return {};
}

}  // namespace

std::optional<SchemaFault> find_schema_fault(const PyJson& schema) { return check_schema(schema); }

}  // namespace bise
