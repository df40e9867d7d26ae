// UTF-8: stepping, validation, repair, and the incomplete tail of a stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace bise {

struct CodePoint {
  uint32_t value;   // U+FFFD when the bytes are not valid
  uint32_t length;  // bytes consumed, at least 1: a maximal invalid part counts as one (WHATWG)
  bool valid;
};

// Reads the code point at text[at]; `at` must be inside.
CodePoint decode_utf8(std::string_view text, size_t at);
void append_utf8(std::string& out, uint32_t code_point);
bool is_valid_utf8(std::string_view text);
// Every maximal invalid part becomes one U+FFFD, as in Python and WHATWG.
std::string repair_utf8(std::string_view text);
// Length (0..3) of the tail that could still become a character when more bytes follow.
size_t incomplete_utf8_tail(std::string_view text);

}  // namespace bise
