#include "base/json.h"

#include "base/utf8.h"

#include <cmath>
#include <map>
#include <vector>

namespace bise {
namespace {

constexpr size_t kShownBytes = 60;  // of a value or a key in a message
constexpr size_t kLinearKeys = 16;  // up to here a scan finds a repeated key faster than an index

// A value of the file as part of a message of one line.
std::string shortened(const std::string& text, size_t max_bytes) {
  std::string_view head = std::string_view(text).substr(0, max_bytes);
  const bool cut = head.size() < text.size();
  if (cut) head.remove_suffix(incomplete_utf8_tail(head));
  std::string shown = repair_utf8(head);
  for (char& c : shown) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
  }
  return cut ? shown + "…" : shown;
}

// Builds the value itself, and not by Json::parse, for two reasons: limits hold before memory is taken,
// and an ordered_json looks for each new key through all earlier ones, which is quadratic.
class Builder : public nlohmann::json_sax<Json> {
 public:
  explicit Builder(const JsonLimits& limits) : limits_(limits) {}
  Json root;
  std::string problem;
  bool too_large = false;

  bool null() override { return add(Json(nullptr)) != nullptr; }
  bool boolean(bool value) override { return add(Json(value)) != nullptr; }
  bool number_integer(number_integer_t value) override { return add(Json(value)) != nullptr; }
  bool number_unsigned(number_unsigned_t value) override { return add(Json(value)) != nullptr; }
  bool number_float(number_float_t value, const string_t&) override {
    return add(Json(value)) != nullptr;
  }
  bool string(string_t& value) override { return add(Json(std::move(value))) != nullptr; }
  bool binary(binary_t&) override { return false; }  // no JSON text has it
  bool start_object(size_t) override { return enter(Json::object()); }
  bool start_array(size_t) override { return enter(Json::array()); }
  bool end_object() override { return leave(); }
  bool end_array() override { return leave(); }
  bool key(string_t& name) override {
    Level& level = levels_.back();
    Json::object_t& members = level.container->get_ref<Json::object_t&>();
    level.member = find(level, members, name);
    if (level.member == members.size()) {
      if (level.member >= kLinearKeys) level.index.emplace(name, level.member);
      members.emplace_back(std::move(name), nullptr);
      return true;
    }
    if (!limits_.reject_duplicate_keys) return true;
    problem = "the key \"" + shortened(name, kShownBytes) + "\" occurs twice in one object";
    return false;
  }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception& e) override {
    std::string what = e.what();
    size_t bracket = what.find("] ");
    if (bracket != std::string::npos) what.erase(0, bracket + 2);
    problem = "not valid JSON at byte " + std::to_string(position) + ": " + shortened(what, 200);
    return false;
  }

 private:
  struct Level {
    Json* container;                      // stays put: its parent grows only after it has ended
    size_t member = 0;                    // of an object: the one that waits for its value
    std::map<std::string, size_t> index;  // key -> member, for objects of more than kLinearKeys
  };

  static size_t find(Level& level, const Json::object_t& members, const std::string& name) {
    if (members.size() < kLinearKeys) {
      size_t at = 0;
      while (at < members.size() && members.data()[at].first != name) ++at;
      return at;
    }
    if (level.index.empty()) {
      for (size_t at = 0; at < members.size(); ++at) level.index.emplace(members.data()[at].first, at);
    }
    auto it = level.index.find(name);
    return it == level.index.end() ? members.size() : it->second;
  }
  // Puts a value where the next one belongs; nullptr when there are too many.
  Json* add(Json value) {
    if (++num_values_ > limits_.max_values) {
      problem = "more than " + std::to_string(limits_.max_values) + " values";
      too_large = true;
      return nullptr;
    }
    if (levels_.empty()) {
      root = std::move(value);
      return &root;
    }
    Level& level = levels_.back();
    if (level.container->is_array()) {
      Json::array_t& items = level.container->get_ref<Json::array_t&>();
      items.push_back(std::move(value));
      return &items.back();
    }
    Json& place = level.container->get_ref<Json::object_t&>().data()[level.member].second;
    place = std::move(value);
    return &place;
  }
  bool enter(Json empty) {
    if (levels_.size() >= limits_.max_depth) {
      problem = "nested deeper than " + std::to_string(limits_.max_depth) + " levels";
      too_large = true;
      return false;
    }
    Json* container = add(std::move(empty));
    if (container == nullptr) return false;
    levels_.push_back({container, 0, {}});
    return true;
  }
  bool leave() {
    levels_.pop_back();
    return true;
  }

  const JsonLimits& limits_;
  size_t num_values_ = 0;
  std::vector<Level> levels_;
};

std::string describe(const Json& value) {
  if (value.is_array()) return "an array of " + std::to_string(value.size()) + " values";
  if (value.is_object()) return "an object of " + std::to_string(value.size()) + " keys";
  if (const auto* text = value.get_ptr<const std::string*>()) {
    return "the string \"" + shortened(*text, kShownBytes) + "\"";
  }
  return value.dump();  // null, true, false or a number
}

Error wrong_type(const Json& value, const char* key, const char* expected, const std::string& path) {
  return Error(ErrorCode::corrupt, (path.empty() ? "" : path + ".") + key + ": expected " +
                                       expected + ", found " + describe(value));
}

// The member, or nullptr when it is missing or null. What is no object (nor null) has no members to
// fall back from: that is an Error, lest a file of another kind read as one of defaults.
Result<const Json*> member(const Json& object, const char* key, const std::string& path) {
  if (object.is_null()) return static_cast<const Json*>(nullptr);
  if (!object.is_object()) {
    return Error(ErrorCode::corrupt, (path.empty() ? "the JSON value" : path) +
                                         ": expected an object, found " + describe(object));
  }
  auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

}  // namespace

Result<Json> parse_json(std::string_view text, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return Error(ErrorCode::too_large, "JSON of " + std::to_string(text.size()) +
                                           " bytes; the limit is " +
                                           std::to_string(limits.max_bytes));
  }
  try {
    Builder builder(limits);
    if (Json::sax_parse(text.begin(), text.end(), &builder)) return std::move(builder.root);
    return Error(builder.too_large ? ErrorCode::too_large : ErrorCode::corrupt, builder.problem);
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::out_of_memory, "out of memory while reading JSON");
  } catch (const std::exception& e) {
    return Error(ErrorCode::corrupt, e.what());
  }
}

bool json_has(const Json& object, const char* key) {
  if (!object.is_object()) return false;
  auto it = object.find(key);
  return it != object.end() && !it->is_null();
}

const char* json_type_name(const Json& value) { return value.type_name(); }

Result<int64_t> json_int(const Json& object, const char* key, int64_t fallback,
                         const std::string& path) {
  const Json* found = TRY(member(object, key, path));
  if (found == nullptr) return fallback;
  const Json& value = *found;
  if (value.is_number_unsigned()) {
    uint64_t number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(INT64_MAX)) return wrong_type(value, key, "an integer", path);
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_number_float()) {
    double number = value.get<double>();
    if (std::floor(number) == number && std::fabs(number) < 0x1p53) {
      return static_cast<int64_t>(number);
    }
  }
  return wrong_type(value, key, "an integer", path);
}

Result<double> json_number(const Json& object, const char* key, double fallback,
                           const std::string& path) {
  const Json* found = TRY(member(object, key, path));
  if (found == nullptr) return fallback;
  const Json& value = *found;
  if (!value.is_number() || !std::isfinite(value.get<double>())) {
    return wrong_type(value, key, "a finite number", path);
  }
  return value.get<double>();
}

Result<bool> json_bool(const Json& object, const char* key, bool fallback,
                       const std::string& path) {
  const Json* found = TRY(member(object, key, path));
  if (found == nullptr) return fallback;
  const Json& value = *found;
  if (!value.is_boolean()) return wrong_type(value, key, "true or false", path);
  return value.get<bool>();
}

Result<std::string> json_string(const Json& object, const char* key, const std::string& fallback,
                                const std::string& path) {
  const Json* found = TRY(member(object, key, path));
  if (found == nullptr) return fallback;
  const Json& value = *found;
  if (!value.is_string()) return wrong_type(value, key, "a string", path);
  return value.get<std::string>();
}

Result<const Json*> json_object(const Json& object, const char* key, const std::string& path) {
  const Json* found = TRY(member(object, key, path));
  if (found == nullptr) return static_cast<const Json*>(nullptr);
  const Json& value = *found;
  if (!value.is_object()) return wrong_type(value, key, "an object", path);
  return &value;
}

}  // namespace bise
