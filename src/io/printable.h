// Texts of a file that reach a person: messages stay one line whatever a file holds.
#pragma once

#include <string>
#include <string_view>

#include "base/utf8.h"

namespace bise {

// Whether `name` can be a tensor's name or a metadata key: 1 to 1024 bytes of UTF-8 without control
// characters. The parsers refuse others, so every name above them may be shown as it is.
inline bool is_printable_name(std::string_view name) {
  if (name.empty() || name.size() > 1024 || !is_valid_utf8(name)) return false;
  for (char c : name) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) return false;
  }
  return true;
}

// A value of the file as part of a message: quoted, repaired, cut to 60 bytes.
inline std::string in_quotes(std::string_view text) {
  std::string shown = repair_utf8(text.substr(0, 60));
  for (char& c : shown) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
  }
  return "\"" + shown + (text.size() > 60 ? "…\"" : "\"");
}

}  // namespace bise
