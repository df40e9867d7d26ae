// Writes JSON into a string, value by value. Answers are written once per token, so this is plain
// appending: no tree is built. The caller closes what it opens.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

namespace bise {

// `text` with quotes. Valid UTF-8 is kept, anything else becomes U+FFFD. Line separators that some
// clients split lines at (U+0085, U+2028, U+2029) are written as escapes.
void append_json_string(std::string& out, std::string_view text);
// Shortest form that reads back the same; not a number and infinities become null.
void append_json_number(std::string& out, double value);

class JsonWriter {
 public:
  explicit JsonWriter(std::string& out) : out_(&out) {}

  JsonWriter& begin_object() { return open('{'); }
  JsonWriter& end_object() { return close('}'); }
  JsonWriter& begin_array() { return open('['); }
  JsonWriter& end_array() { return close(']'); }
  JsonWriter& key(std::string_view name) {
    separate();
    append_json_string(*out_, name);
    *out_ += ':';
    needs_comma_ = false;
    return *this;
  }
  JsonWriter& value(std::string_view text) {
    separate();
    append_json_string(*out_, text);
    needs_comma_ = true;
    return *this;
  }
  JsonWriter& value(const char* text) { return value(std::string_view(text)); }
  JsonWriter& value(const std::string& text) { return value(std::string_view(text)); }
  JsonWriter& value(bool truth) { return raw(truth ? "true" : "false"); }
  JsonWriter& value(double number) {
    separate();
    append_json_number(*out_, number);
    needs_comma_ = true;
    return *this;
  }
  template <std::integral T>
    requires(!std::same_as<T, bool>)
  JsonWriter& value(T number) {
    return raw(std::to_string(number));
  }
  JsonWriter& null() { return raw("null"); }
  // A value that is JSON already.
  JsonWriter& raw(std::string_view json) {
    separate();
    *out_ += json;
    needs_comma_ = true;
    return *this;
  }
  template <class T>
  JsonWriter& field(std::string_view name, const T& content) {
    return key(name).value(content);
  }

 private:
  void separate() {
    if (needs_comma_) *out_ += ',';
    needs_comma_ = false;
  }
  JsonWriter& open(char bracket) {
    separate();
    *out_ += bracket;
    return *this;
  }
  JsonWriter& close(char bracket) {
    *out_ += bracket;
    needs_comma_ = true;
    return *this;
  }
  std::string* out_;
  bool needs_comma_ = false;
};

}  // namespace bise
