#include "text/pre_tokenizer.h"

#include <cstdint>

#include "text/unicode_tables.h"

namespace bise {

const std::string_view kTekkenPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

namespace {

using Set = uint32_t;  // bit n: the class with value n
constexpr Set set_of(CharClass c) { return Set{1} << static_cast<uint32_t>(c); }
constexpr Set kUpper = set_of(CharClass::upper);
constexpr Set kLower = set_of(CharClass::lower);
constexpr Set kOtherLetter = set_of(CharClass::other_letter);
constexpr Set kMark = set_of(CharClass::mark);
constexpr Set kNumber = set_of(CharClass::number);
constexpr Set kNewline = set_of(CharClass::newline);
constexpr Set kSpace = set_of(CharClass::space);
constexpr Set kRest = set_of(CharClass::rest);
constexpr Set kLetter = kUpper | kLower | kOtherLetter;
constexpr Set kWhite = kNewline | kSpace;

// The character at a place: its class as a one-bit set (empty at the end of the text) and its end.
struct Char {
  Set set;
  size_t end;
  bool in(Set other) const { return (set & other) != 0; }
};

Char char_at(std::string_view text, size_t at) {
  if (at >= text.size()) return {0, at};
  auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(text[at + i])); };
  uint32_t lead = byte(0);
  if (lead < 0x80) return {set_of(char_class(lead)), at + 1};
  uint32_t code_point, length;  // the text is known to be valid
  if (lead < 0xE0) {
    code_point = (lead & 0x1F) << 6 | (byte(1) & 0x3F);
    length = 2;
  } else if (lead < 0xF0) {
    code_point = (lead & 0xF) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    length = 3;
  } else {
    code_point = (lead & 7) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
    length = 4;
  }
  return {set_of(char_class(code_point)), at + length};
}

size_t run_of(std::string_view text, size_t at, Set set) {
  for (Char c = char_at(text, at); c.in(set); c = char_at(text, at)) at = c.end;
  return at;
}

// [U O M]* [l O M]+ from `at`; returns `at` for no match. With no lower-case letter after the first
// run, backtracking gives capitals back until an O or M can be the second part: the run's last one.
// What is given back are capitals only; the next piece takes them, so no text is scanned more than
// a few times.
size_t word(std::string_view text, size_t at) {
  size_t end = at, after_last_caseless = at;
  Char c = char_at(text, at);
  for (; c.in(kUpper | kOtherLetter | kMark); c = char_at(text, end)) {
    end = c.end;
    if (!c.in(kUpper)) after_last_caseless = end;
  }
  if (c.in(kLower)) return run_of(text, end, kLower | kOtherLetter | kMark);
  return after_last_caseless;
}

// A run of white space, by \s*[\r\n]+|\s+(?!\S)|\s+ or, without `newlines`, by \s+(?!\S)|\s+.
size_t white_space(std::string_view text, size_t at, bool newlines) {
  size_t end = at, before_last = at, after_newline = at;
  for (Char c = char_at(text, at); c.in(kWhite); c = char_at(text, end)) {
    before_last = end;
    end = c.end;
    if (c.in(kNewline)) after_newline = end;
  }
  if (newlines && after_newline > at) return after_newline;
  // The last blank before a word is left to the word, unless it is all there is.
  if (end == text.size() || before_last == at) return end;
  return before_last;
}

}  // namespace

size_t next_tekken_piece(std::string_view text, size_t at) {
  Char first = char_at(text, at);
  bool may_lead = first.in(kSpace | kRest | kMark);  // [^\r\n\p{L}\p{N}]
  if (may_lead) {
    size_t end = word(text, first.end);
    if (end > first.end) return end;
  }
  if (first.in(kLetter | kMark)) {
    size_t end = word(text, at);
    if (end > at) return end;
  }
  if (may_lead) {
    size_t end = run_of(text, first.end, kUpper);
    if (end > first.end) return end;
  }
  if (first.in(kUpper)) return run_of(text, at, kUpper);
  if (first.in(kNumber)) return first.end;
  size_t after_blank = text[at] == ' ' ? first.end : at;
  size_t end = run_of(text, after_blank, kRest | kMark);
  if (end > after_blank) {
    while (end < text.size() && (text[end] == '\r' || text[end] == '\n' || text[end] == '/')) ++end;
    return end;
  }
  return white_space(text, at, true);
}

size_t next_gpt2_piece(std::string_view text, size_t at) {
  if (text[at] == '\'') {
    std::string_view rest = text.substr(at + 1, 2);
    for (std::string_view ending : {"s", "t", "re", "ve", "m", "ll", "d"}) {
      if (rest.substr(0, ending.size()) == ending) return at + 1 + ending.size();
    }
  }
  size_t after_blank = text[at] == ' ' ? at + 1 : at;
  Char c = char_at(text, after_blank);
  for (Set set : {kLetter, kNumber, kRest | kMark}) {
    if (c.in(set)) return run_of(text, c.end, set);
  }
  return white_space(text, at, false);
}

size_t next_smollm_piece(std::string_view text, size_t at) {
  Char first = char_at(text, at);
  if (first.in(kNumber)) return first.end;
  // The look-ahead of the blank rule must see the end of text at the next number. Only a run of white
  // space that touches a number can tell the difference: it is then one piece.
  if (first.in(kWhite)) {
    size_t end = run_of(text, at, kWhite);
    if (char_at(text, end).in(kNumber)) return end;
  }
  return next_gpt2_piece(text, at);
}

}  // namespace bise
