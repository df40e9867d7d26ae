#include "server/json_writer.h"

#include <charconv>
#include <cmath>
#include <cstdio>

#include "base/utf8.h"

namespace bise {

void append_json_string(std::string& out, std::string_view text) {
  if (!is_valid_utf8(text)) return append_json_string(out, repair_utf8(text));
  out += '"';
  size_t plain = 0;  // start of what can be copied as it is
  auto escape = [&](size_t at, size_t length, const char* escaped) {
    out.append(text, plain, at - plain);
    out += escaped;
    plain = at + length;
  };
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c == '"') escape(i, 1, "\\\"");
    else if (c == '\\') escape(i, 1, "\\\\");
    else if (c == '\n') escape(i, 1, "\\n");
    else if (c == '\t') escape(i, 1, "\\t");
    else if (c == '\r') escape(i, 1, "\\r");
    else if (c < 0x20 || c == 0x7F) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04x", c);
      escape(i, 1, code);
    } else if (c == 0xC2 && static_cast<unsigned char>(text[i + 1]) == 0x85) {
      escape(i, 2, "\\u0085");
    } else if (c == 0xE2 && static_cast<unsigned char>(text[i + 1]) == 0x80 &&
               (static_cast<unsigned char>(text[i + 2]) == 0xA8 || static_cast<unsigned char>(text[i + 2]) == 0xA9)) {
      escape(i, 3, static_cast<unsigned char>(text[i + 2]) == 0xA8 ? "\\u2028" : "\\u2029");
    }
  }
  out.append(text, plain);
  out += '"';
}

void append_json_number(std::string& out, double value) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  char digits[40];
  auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  out.append(digits, static_cast<size_t>(end - digits));
}

}  // namespace bise
