#include "chat/lax_types.h"

#include <cmath>
#include <string>

namespace bise {
namespace {

std::string lower_ascii(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\f\v";
  size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

// A number written inside a string. JSON's own number forms are enough here.
std::optional<PyJson> number_in(const std::string& text) {
  std::string_view written = trimmed(text);
  if (!written.empty() && written.front() == '+') written.remove_prefix(1);
  Result<PyJson> value = parse_python_json(written);
  if (!value || (value->integer() == nullptr && value->real() == nullptr)) return std::nullopt;
  return std::move(value).value();
}

}  // namespace

std::optional<bool> lax_bool(const PyJson& value) {
  if (const bool* b = value.boolean()) return *b;
  if (const PyJson::Integer* i = value.integer()) {
    if (i->digits == "0") return false;
    if (i->digits == "1") return true;
  }
  if (const double* d = value.real()) {
    if (*d == 0) return false;
    if (*d == 1) return true;
  }
  if (const std::string* s = value.string()) {
    std::string word = lower_ascii(*s);
    for (const char* yes : {"1", "true", "t", "yes", "y", "on"}) {
      if (word == yes) return true;
    }
    for (const char* no : {"0", "false", "f", "no", "n", "off"}) {
      if (word == no) return false;
    }
  }
  return std::nullopt;
}

std::optional<double> lax_number(const PyJson& value) {
  if (const bool* b = value.boolean()) return *b ? 1 : 0;
  if (const double* d = value.real()) return *d;
  if (const PyJson::Integer* i = value.integer()) {
    Result<PyJson> real = parse_python_json(i->digits + ".0");
    return *real->real();
  }
  if (const std::string* s = value.string()) {
    std::optional<PyJson> number = number_in(*s);
    if (number) return lax_number(*number);
  }
  return std::nullopt;
}

std::optional<int> lax_integer_sign(const PyJson& value) {
  if (const bool* b = value.boolean()) return *b ? 1 : 0;
  if (const PyJson::Integer* i = value.integer()) {
    return i->digits == "0" ? 0 : i->digits.front() == '-' ? -1 : 1;
  }
  if (const double* d = value.real()) {
    if (!std::isfinite(*d) || std::trunc(*d) != *d) return std::nullopt;
    return *d == 0 ? 0 : *d < 0 ? -1 : 1;
  }
  if (const std::string* s = value.string()) {
    std::optional<PyJson> number = number_in(*s);
    if (number) return lax_integer_sign(*number);
  }
  return std::nullopt;
}

}  // namespace bise
