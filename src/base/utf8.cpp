#include "base/utf8.h"

namespace bise {
namespace {

// Bytes wanted after the lead, and the range that the second byte must lie in. Unicode table 3-7.
struct Lead {
  uint32_t following;
  uint8_t low, high;
};
bool classify_lead(uint8_t lead, Lead* out) {
  if (lead >= 0xC2 && lead <= 0xDF) *out = {1, 0x80, 0xBF};
  else if (lead == 0xE0) *out = {2, 0xA0, 0xBF};
  else if (lead == 0xED) *out = {2, 0x80, 0x9F};
  else if (lead >= 0xE1 && lead <= 0xEF) *out = {2, 0x80, 0xBF};
  else if (lead == 0xF0) *out = {3, 0x90, 0xBF};
  else if (lead >= 0xF1 && lead <= 0xF3) *out = {3, 0x80, 0xBF};
  else if (lead == 0xF4) *out = {3, 0x80, 0x8F};
  else return false;
  return true;
}

// Length of the longest prefix of text[at..] that could begin the character; `*whole` if complete.
uint32_t prefix_length(std::string_view text, size_t at, const Lead& lead, bool* whole) {
  uint32_t length = 1;
  while (length <= lead.following && at + length < text.size()) {
    uint8_t byte = static_cast<uint8_t>(text[at + length]);
    uint8_t low = length == 1 ? lead.low : 0x80;
    uint8_t high = length == 1 ? lead.high : 0xBF;
    if (byte < low || byte > high) break;
    ++length;
  }
  *whole = length == lead.following + 1;
  return length;
}

}  // namespace

CodePoint decode_utf8(std::string_view text, size_t at) {
  uint8_t first = static_cast<uint8_t>(text[at]);
  if (first < 0x80) return {first, 1, true};
  Lead lead;
  if (!classify_lead(first, &lead)) return {0xFFFD, 1, false};
  bool whole = false;
  uint32_t length = prefix_length(text, at, lead, &whole);
  if (!whole) return {0xFFFD, length, false};
  uint32_t value = first & (0x3Fu >> lead.following);
  for (uint32_t i = 1; i < length; ++i) {
    value = (value << 6) | (static_cast<uint8_t>(text[at + i]) & 0x3Fu);
  }
  return {value, length, true};
}

void append_utf8(std::string& out, uint32_t c) {
  auto put = [&out](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) c = 0xFFFD;
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | (c >> 6));
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | (c >> 12));
    put(0x80 | ((c >> 6) & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | (c >> 18));
    put(0x80 | ((c >> 12) & 0x3F));
    put(0x80 | ((c >> 6) & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

bool is_valid_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    CodePoint c = decode_utf8(text, at);
    if (!c.valid) return false;
    at += c.length;
  }
  return true;
}

std::string repair_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    CodePoint c = decode_utf8(text, at);
    if (c.valid) out.append(text.substr(at, c.length));
    else append_utf8(out, 0xFFFD);
    at += c.length;
  }
  return out;
}

size_t incomplete_utf8_tail(std::string_view text) {
  size_t longest = text.size() < 3 ? text.size() : 3;
  for (size_t tail = longest; tail >= 1; --tail) {
    size_t at = text.size() - tail;
    Lead lead;
    if (!classify_lead(static_cast<uint8_t>(text[at]), &lead)) continue;
    bool whole = false;
    if (prefix_length(text, at, lead, &whole) == tail && !whole) return tail;
  }
  return 0;
}

}  // namespace bise
