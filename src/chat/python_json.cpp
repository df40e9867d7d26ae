#include "chat/python_json.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <unordered_map>

#include "base/utf8.h"

namespace bise {

const PyJson* PyJson::find(std::string_view key) const {
  const Object* members = object();
  if (members == nullptr) return nullptr;
  for (const Member& member : *members) {
    if (member.key == key) return &member.value;
  }
  return nullptr;
}

const PyJson* PyJson::get(std::string_view key) const {
  const PyJson* found = find(key);
  return found == nullptr || found->is_null() ? nullptr : found;
}

bool PyJson::truthy() const {
  if (const bool* b = boolean()) return *b;
  if (const Integer* i = integer()) return i->digits != "0";
  if (const double* d = real()) return *d != 0;
  if (const std::string* s = string()) return !s->empty();
  if (const Array* a = array()) return !a->empty();
  if (const Object* o = object()) return !o->empty();
  return false;
}

const char* PyJson::type_name() const {
  static constexpr const char* kNames[] = {"null",     "a boolean", "an integer", "a number",
                                           "a string", "a list",    "an object"};
  return kNames[value_.index()];
}

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// A decimal number that from_chars found out of range is either huge or tiny; this says which, by
// the place of its first significant digit.
bool is_huge(std::string_view number) {
  int64_t exponent = 0;
  size_t e = number.find_first_of("eE");
  if (e != std::string_view::npos) {
    std::string_view digits = number.substr(e + 1);
    bool negative = digits.front() == '-';
    if (digits.front() == '-' || digits.front() == '+') digits.remove_prefix(1);
    for (char c : digits) exponent = std::min<int64_t>(exponent * 10 + (c - '0'), int64_t{1} << 40);
    if (negative) exponent = -exponent;
    number = number.substr(0, e);
  }
  if (number.front() == '-') number.remove_prefix(1);
  size_t point = std::min(number.find('.'), number.size());
  for (size_t i = 0; i < number.size(); ++i) {
    if (number[i] >= '1' && number[i] <= '9') {
      return exponent + static_cast<int64_t>(point) - static_cast<int64_t>(i) > 0;
    }
  }
  return false;
}

class Parser {
 public:
  Parser(std::string_view text, const PyJsonLimits& limits) : text_(text), limits_(limits) {}

  Result<PyJson> document() {
    skip_space();
    PyJson value = TRY(this->value(0));
    skip_space();
    if (at_ != text_.size()) return wrong("the end of the text");
    return value;
  }

  // The document, an object, and where the value of its member `key` stands in the text.
  Result<std::string_view> member_text(std::string_view key) {
    watched_key_ = key;
    TRY(document());
    if (watched_.data() != nullptr) return watched_;
    return Error(ErrorCode::not_found, "the JSON object has no key " + std::string(key));
  }

 private:
  Error wrong(const char* expected) const {
    return Error(ErrorCode::corrupt,
                 "not JSON at byte " + std::to_string(at_) + ": expected " + expected);
  }
  static Error beyond(std::string what) { return Error(ErrorCode::too_large, std::move(what)); }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool take(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }
  void skip_space() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) {
      ++at_;
    }
  }

  // Recursive; the depth limit bounds the stack at a few hundred kilobytes.
  Result<PyJson> value(size_t depth) {
    if (++num_values_ > limits_.max_values) {
      return beyond("the JSON text holds more than " + std::to_string(limits_.max_values) +
                    " values");
    }
    switch (peek()) {
      case '{': return object(depth + 1);
      case '[': return array(depth + 1);
      case '"': return PyJson(TRY(string()));
      case 'n':
        if (take("null")) return PyJson();
        break;
      case 't':
        if (take("true")) return PyJson(true);
        break;
      case 'f':
        if (take("false")) return PyJson(false);
        break;
      case 'N':
        if (take("NaN")) return PyJson(std::numeric_limits<double>::quiet_NaN());
        break;
      case 'I':
        if (take("Infinity")) return PyJson(std::numeric_limits<double>::infinity());
        break;
      case '-':
        if (take("-Infinity")) return PyJson(-std::numeric_limits<double>::infinity());
        return number();
      default:
        if (is_digit(peek())) return number();
    }
    return wrong("a value");
  }

  Result<PyJson> number() {
    size_t begin = at_;
    if (peek() == '-') ++at_;
    size_t first_digit = at_;
    if (!is_digit(peek())) return wrong("a digit");
    if (peek() == '0') {
      ++at_;
    } else {
      while (is_digit(peek())) ++at_;
    }
    size_t num_digits = at_ - first_digit;
    bool is_real = false;
    if (peek() == '.' && at_ + 1 < text_.size() && is_digit(text_[at_ + 1])) {
      is_real = true;
      ++at_;
      while (is_digit(peek())) ++at_;
    }
    if (peek() == 'e' || peek() == 'E') {
      size_t digit = at_ + 1;
      if (digit < text_.size() && (text_[digit] == '+' || text_[digit] == '-')) ++digit;
      if (digit < text_.size() && is_digit(text_[digit])) {
        is_real = true;
        at_ = digit;
        while (is_digit(peek())) ++at_;
      }
    }
    std::string_view written = text_.substr(begin, at_ - begin);
    if (is_real) return PyJson(to_double(written));
    if (num_digits > limits_.max_integer_digits) {
      return beyond("an integer has " + std::to_string(num_digits) + " digits; at most " +
                    std::to_string(limits_.max_integer_digits) + " are allowed");
    }
    return PyJson(PyJson::Integer{written == "-0" ? "0" : std::string(written)});
  }

  static double to_double(std::string_view written) {
    double value = 0;
    auto [end, status] = std::from_chars(written.data(), written.data() + written.size(), value);
    (void)end;
    if (status != std::errc::result_out_of_range) return value;
    double magnitude = is_huge(written) ? std::numeric_limits<double>::infinity() : 0.0;
    return written.front() == '-' ? -magnitude : magnitude;
  }

  // Four hexadecimal digits at `at_`, or -1.
  int32_t hex4() {
    if (text_.size() - at_ < 4) return -1;
    uint32_t value = 0;
    const char* begin = text_.data() + at_;
    for (int i = 0; i < 4; ++i) {
      char c = begin[i];
      uint32_t digit = is_digit(c)            ? static_cast<uint32_t>(c - '0')
                       : c >= 'a' && c <= 'f' ? static_cast<uint32_t>(c - 'a' + 10)
                       : c >= 'A' && c <= 'F' ? static_cast<uint32_t>(c - 'A' + 10)
                                              : 16;
      if (digit == 16) return -1;
      value = value * 16 + digit;
    }
    at_ += 4;
    return static_cast<int32_t>(value);
  }

  Result<std::string> string() {
    ++at_;  // the quote
    std::string out;
    while (true) {
      size_t run = at_;
      while (at_ < text_.size() && static_cast<unsigned char>(text_[at_]) >= 0x20 &&
             text_[at_] != '"' && text_[at_] != '\\') {
        ++at_;
      }
      out.append(text_.substr(run, at_ - run));
      if (at_ == text_.size()) return wrong("a quote that ends the string");
      if (text_[at_] == '"') {
        ++at_;
        return out;
      }
      if (text_[at_] != '\\') return wrong("no raw control character in a string");
      ++at_;
      if (at_ == text_.size()) return wrong("an escape");
      switch (text_[at_++]) {
        case '"': out += '"'; break;
        case '\\': out += '\\'; break;
        case '/': out += '/'; break;
        case 'b': out += '\b'; break;
        case 'f': out += '\f'; break;
        case 'n': out += '\n'; break;
        case 'r': out += '\r'; break;
        case 't': out += '\t'; break;
        case 'u': {
          int32_t unit = hex4();
          if (unit < 0) return wrong("four hexadecimal digits");
          uint32_t code = static_cast<uint32_t>(unit);
          if (code >= 0xD800 && code < 0xDC00 && text_.substr(at_, 2) == "\\u") {
            size_t back = at_;
            at_ += 2;
            int32_t low = hex4();
            if (low < 0) return wrong("four hexadecimal digits");
            if (low >= 0xDC00 && low < 0xE000) {
              code = 0x10000 + ((code - 0xD800) << 10) + (static_cast<uint32_t>(low) - 0xDC00);
            } else {
              at_ = back;
            }
          }
          append_code(out, code);
          break;
        }
        default: --at_; return wrong("one of the escapes \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u");
      }
    }
  }

  // append_utf8, but half a surrogate pair keeps its three bytes.
  static void append_code(std::string& out, uint32_t code) {
    if (code >= 0xD800 && code < 0xE000) {
      out += static_cast<char>(0xED);
      out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
      out += static_cast<char>(0x80 | (code & 0x3F));
    } else {
      append_utf8(out, code);
    }
  }

  Error too_deep() const {
    return beyond("the JSON text is nested more than " + std::to_string(limits_.max_depth) +
                  " deep");
  }

  Result<PyJson> array(size_t depth) {
    if (depth > limits_.max_depth) return too_deep();
    ++at_;
    PyJson::Array items;
    skip_space();
    if (peek() == ']') {
      ++at_;
      return PyJson(std::move(items));
    }
    while (true) {
      skip_space();
      items.push_back(TRY(value(depth)));
      skip_space();
      char c = peek();
      if (c != ',' && c != ']') return wrong("',' or ']'");
      ++at_;
      if (c == ']') return PyJson(std::move(items));
    }
  }

  Result<PyJson> object(size_t depth) {
    if (depth > limits_.max_depth) return too_deep();
    ++at_;
    PyJson::Object members;
    std::unordered_map<std::string, size_t> places;  // only once the object is no longer small
    skip_space();
    if (peek() == '}') {
      ++at_;
      return PyJson(std::move(members));
    }
    while (true) {
      skip_space();
      if (peek() != '"') return wrong("a key in double quotes");
      std::string key = TRY(string());
      skip_space();
      if (peek() != ':') return wrong("':'");
      ++at_;
      skip_space();
      size_t begin = at_;
      PyJson item = TRY(value(depth));
      if (depth == 1 && key == watched_key_) watched_ = text_.substr(begin, at_ - begin);
      size_t place = place_of(key, members, places);
      if (place < members.size()) {
        members[place].value = std::move(item);
      } else {
        members.push_back({std::move(key), std::move(item)});
      }
      skip_space();
      char c = peek();
      if (c != ',' && c != '}') return wrong("',' or '}'");
      ++at_;
      if (c == '}') return PyJson(std::move(members));
    }
  }

  // Where the key stands already, or members.size(). A new key is entered into `places`.
  static size_t place_of(const std::string& key, const PyJson::Object& members,
                         std::unordered_map<std::string, size_t>& places) {
    constexpr size_t kSmall = 16;
    if (members.size() < kSmall) {
      size_t i = 0;
      while (i < members.size() && members[i].key != key) ++i;
      return i;
    }
    if (places.empty()) {
      for (size_t i = 0; i < members.size(); ++i) places.emplace(members[i].key, i);
    }
    return places.emplace(key, members.size()).first->second;
  }

  std::string_view text_;
  const PyJsonLimits& limits_;
  size_t at_ = 0;
  size_t num_values_ = 0;
  std::string_view watched_key_, watched_;
};

void append_value(std::string& out, const PyJson& value) {
  if (const bool* b = value.boolean()) {
    out += *b ? "true" : "false";
  } else if (const PyJson::Integer* i = value.integer()) {
    out += i->digits;
  } else if (const double* d = value.real()) {
    out += python_float_repr(*d);
  } else if (const std::string* s = value.string()) {
    append_python_json_string(out, *s);
  } else if (const PyJson::Array* items = value.array()) {
    out += '[';
    for (size_t at = 0; at < items->size(); ++at) {
      if (at > 0) out += ", ";
      append_value(out, (*items)[at]);
    }
    out += ']';
  } else if (const PyJson::Object* members = value.object()) {
    out += '{';
    for (size_t at = 0; at < members->size(); ++at) {
      if (at > 0) out += ", ";
      append_python_json_string(out, (*members)[at].key);
      out += ": ";
      append_value(out, (*members)[at].value);
    }
    out += '}';
  } else {
    out += "null";
  }
}

// The code unit of a surrogate half written in three bytes at text[at], or 0.
uint32_t surrogate_at(std::string_view text, size_t at) {
  if (text.size() - at < 3 || static_cast<unsigned char>(text[at]) != 0xED) return 0;
  uint32_t second = static_cast<unsigned char>(text[at + 1]);
  uint32_t third = static_cast<unsigned char>(text[at + 2]);
  if (second < 0xA0 || second > 0xBF || (third & 0xC0) != 0x80) return 0;
  return 0xD000 | ((second & 0x3F) << 6) | (third & 0x3F);
}

}  // namespace

Result<PyJson> parse_python_json(std::string_view text, const PyJsonLimits& limits) {
  return Parser(text, limits).document();
}

Result<std::string_view> python_json_member_text(std::string_view text, std::string_view key,
                                                 const PyJsonLimits& limits) {
  return Parser(text, limits).member_text(key);
}

std::string dump_python_json(const PyJson& value) {
  std::string out;
  append_value(out, value);
  return out;
}

void append_python_json_string(std::string& out, std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  for (char c : text) {
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\b': out += "\\b"; break;
      case '\f': out += "\\f"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += "\\u00";
          out += kHex[static_cast<unsigned char>(c) >> 4];
          out += kHex[static_cast<unsigned char>(c) & 15];
        } else {
          out += c;
        }
    }
  }
  out += '"';
}

// The shortest digits that read back as the same double; with an exponent below 1e-4 and from 1e16.
std::string python_float_repr(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  char buffer[40];
  auto [end, status] =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific);
  CHECK(status == std::errc());
  std::string_view written(buffer, static_cast<size_t>(end - buffer));  // -d.ddde±xx
  size_t e = written.find('e');
  int exponent = 0;
  std::string_view power = written.substr(e + 1);
  bool negative_power = power.front() == '-';
  for (char c : power.substr(1)) exponent = exponent * 10 + (c - '0');
  if (negative_power) exponent = -exponent;

  std::string out;
  std::string digits;
  for (char c : written.substr(0, e)) {
    if (is_digit(c)) digits += c;
  }
  if (written.front() == '-') out += '-';
  if (exponent < -4 || exponent >= 16) {
    out += digits.front();
    if (digits.size() > 1) out += "." + digits.substr(1);
    std::string magnitude = std::to_string(std::abs(exponent));
    if (magnitude.size() < 2) magnitude = "0" + magnitude;
    return out + (exponent < 0 ? "e-" : "e+") + magnitude;
  }
  if (exponent < 0) {
    return out + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  }
  size_t whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() < whole) digits.resize(whole, '0');
  std::string fraction = digits.size() > whole ? digits.substr(whole) : "0";
  return out + digits.substr(0, whole) + "." + fraction;
}

std::string join_surrogates(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  size_t done = 0;
  for (size_t at = text.find('\xED'); at != std::string_view::npos; at = text.find('\xED', at)) {
    uint32_t unit = surrogate_at(text, at);
    if (unit == 0) {
      ++at;
      continue;
    }
    out.append(text.substr(done, at - done));
    at += 3;
    uint32_t next = unit < 0xDC00 ? surrogate_at(text, at) : 0;
    if (next >= 0xDC00) {
      append_utf8(out, 0x10000 + ((unit - 0xD800) << 10) + (next - 0xDC00));
      at += 3;
    } else {
      append_utf8(out, 0xFFFD);
    }
    done = at;
  }
  out.append(text.substr(done));
  return out;
}

}  // namespace bise
