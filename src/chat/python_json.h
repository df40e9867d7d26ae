// JSON as Python's json module reads and writes it: the dialect in which Mistral's models saw
// tools, settings and call arguments. Not base/json.h, because that one turns integers of more than
// 64 bits into doubles, cannot say NaN, and does not keep the place of a repeated key; each of
// these changes the prompt. Since tools and schemas arrive inside the request, the whole body is
// read with this.
//
// Strings are UTF-8, with one exception: an escape such as "\ud83d" without its other half is kept
// as the three bytes that UTF-8 would give it, because two halves may still meet when texts are
// joined. join_surrogates() makes plain UTF-8 of it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/error.h"

namespace bise {

class PyJson {
 public:
  struct Integer {
    std::string digits;  // "-" and digits, as long as it came; never "-0"
  };
  struct Member;
  using Array = std::vector<PyJson>;
  using Object = std::vector<Member>;  // keys are distinct, in the order of their first appearance

  PyJson();  // null
  explicit PyJson(bool value);
  explicit PyJson(Integer value);
  explicit PyJson(double value);
  explicit PyJson(std::string value);
  explicit PyJson(Array value);
  explicit PyJson(Object value);
  PyJson(const PyJson& other);
  PyJson(PyJson&& other) noexcept;
  PyJson& operator=(const PyJson& other);
  PyJson& operator=(PyJson&& other) noexcept;
  ~PyJson();

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  // The value when it has that type, else nullptr. An integer is not a real.
  const bool* boolean() const { return std::get_if<bool>(&value_); }
  const Integer* integer() const { return std::get_if<Integer>(&value_); }
  const double* real() const { return std::get_if<double>(&value_); }
  const std::string* string() const { return std::get_if<std::string>(&value_); }
  const Array* array() const { return std::get_if<Array>(&value_); }
  const Object* object() const { return std::get_if<Object>(&value_); }

  // The member of an object, or nullptr when this is no object or has no such key.
  const PyJson* find(std::string_view key) const;
  // The same, but a null counts as missing.
  const PyJson* get(std::string_view key) const;
  // What Python's `if value:` takes as true.
  bool truthy() const;
  const char* type_name() const;  // "a string", "null", … for messages

 private:
  std::variant<std::monostate, bool, Integer, double, std::string, Array, Object> value_;
};

struct PyJson::Member {
  std::string key;
  PyJson value;
};

// Only here are both types complete.
inline PyJson::PyJson() = default;
inline PyJson::PyJson(bool value) : value_(value) {}
inline PyJson::PyJson(Integer value) : value_(std::move(value)) {}
inline PyJson::PyJson(double value) : value_(value) {}
inline PyJson::PyJson(std::string value) : value_(std::move(value)) {}
inline PyJson::PyJson(Array value) : value_(std::move(value)) {}
inline PyJson::PyJson(Object value) : value_(std::move(value)) {}
inline PyJson::PyJson(const PyJson& other) = default;
inline PyJson::PyJson(PyJson&& other) noexcept = default;
inline PyJson& PyJson::operator=(const PyJson& other) = default;
inline PyJson& PyJson::operator=(PyJson&& other) noexcept = default;
inline PyJson::~PyJson() = default;

struct PyJsonLimits {
  size_t max_depth = 900;               // Python's own recursion limit leaves about 990
  size_t max_integer_digits = 4300;     // Python refuses longer ones, too
  size_t max_values = size_t{4} << 20;  // of any type; bounds memory at some 200 MB
};

// json.loads. ErrorCode::corrupt: not JSON. ErrorCode::too_large: beyond a limit, where Python
// would fail as well. Linear in the text; repeated keys cost no more than others.
Result<PyJson> parse_python_json(std::string_view text, const PyJsonLimits& limits = {});

// The source text of a member's value in the text of an object (of a repeated key the last one), so
// that a request inside another JSON object reaches its reader unchanged. Errors as above;
// ErrorCode::not_found when there is no such key.
Result<std::string_view> python_json_member_text(std::string_view text, std::string_view key,
                                                 const PyJsonLimits& limits = {});

// json.dumps with ensure_ascii=False: ", " and ": ", shortest floats in Python's writing.
std::string dump_python_json(const PyJson& value);
void append_python_json_string(std::string& out, std::string_view text);
std::string python_float_repr(double value);

// Joins surrogate halves that stand side by side and turns lone ones into U+FFFD.
std::string join_surrogates(std::string_view text);

}  // namespace bise
