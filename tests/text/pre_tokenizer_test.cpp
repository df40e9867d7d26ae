#include "text/pre_tokenizer.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/utf8.h"
#include "text/unicode_tables.h"

namespace bise {
namespace {

using Pieces = std::vector<std::string>;
using NextPiece = size_t (*)(std::string_view, size_t);

Pieces cut(NextPiece next, std::string_view text) {
  Pieces pieces;
  for (size_t at = 0; at < text.size();) {
    size_t end = next(text, at);
    EXPECT_GT(end, at);
    if (end <= at) break;
    pieces.emplace_back(text.substr(at, end - at));
    at = end;
  }
  return pieces;
}

// The slow twin: the published expressions as they stand, matched greedily with full backtracking. It
// has its own idea of the few characters it is asked about.
enum Property { kUpper = 1, kLower = 2, kLo = 4, kMark = 8, kDigit = 16, kCrLf = 32, kSlash = 64,
                kBlank = 128, kOtherSpace = 256, kQuote = 512, kPunctuation = 1024,
                kS = 2048, kL = 4096 };  // s and l are told apart for the contractions
constexpr int kLetters = kUpper | kLower | kLo | kS | kL;
constexpr int kSpaces = kCrLf | kBlank | kOtherSpace;
constexpr int kAll = 8191;

int property(char32_t c) {
  switch (c) {
    case 'a': return kLower;
    case 's': return kS;
    case 'l': return kL;
    case 'A': return kUpper;
    case U'中': return kLo;
    case 0x301: return kMark;
    case '1': return kDigit;
    case '.': return kPunctuation;
    case '\'': return kQuote;
    case ' ': return kBlank;
    case '\n': return kCrLf;
    case '/': return kSlash;
    case '\t': return kOtherSpace;
  }
  ADD_FAILURE() << "unknown character " << static_cast<uint32_t>(c);
  return 0;
}

struct Atom {
  int set;
  int least;
  int most;
};
struct Alternative {
  std::vector<Atom> atoms;
  bool no_text_follows = false;  // (?!\S)
};
constexpr int kMany = 1000;

// End of the greedy match of atoms[index..] from `at`, or -1.
int match(const Alternative& alternative, size_t index, const std::u32string& text, int at) {
  int size = static_cast<int>(text.size());
  auto in = [&](int i, int set) { return (property(text[static_cast<size_t>(i)]) & set) != 0; };
  if (index == alternative.atoms.size()) {
    bool allowed = !alternative.no_text_follows || at == size || in(at, kSpaces);
    return allowed ? at : -1;
  }
  Atom atom = alternative.atoms[index];
  int count = 0;
  while (count < atom.most && at + count < size && in(at + count, atom.set)) ++count;
  for (; count >= atom.least; --count) {
    int end = match(alternative, index + 1, text, at + count);
    if (end >= 0) return end;
  }
  return -1;
}

constexpr int kUpperSide = kUpper | kLo | kMark, kLowerSide = kLower | kS | kL | kLo | kMark;
constexpr int kMayLead = kAll & ~(kCrLf | kLetters | kDigit);
constexpr int kRest = kAll & ~(kSpaces | kLetters | kDigit);
const std::vector<Alternative> kTekken = {
    {{{kMayLead, 0, 1}, {kUpperSide, 0, kMany}, {kLowerSide, 1, kMany}}},
    {{{kMayLead, 0, 1}, {kUpperSide, 1, kMany}, {kLowerSide, 0, kMany}}},
    {{{kDigit, 1, 1}}},
    {{{kBlank, 0, 1}, {kRest, 1, kMany}, {kCrLf | kSlash, 0, kMany}}},
    {{{kSpaces, 0, kMany}, {kCrLf, 1, kMany}}},
    {{{kSpaces, 1, kMany}}, true},
    {{{kSpaces, 1, kMany}}}};
const std::vector<Alternative> kGpt2 = {
    {{{kQuote, 1, 1}, {kS, 1, 1}}},
    {{{kQuote, 1, 1}, {kL, 1, 1}, {kL, 1, 1}}},
    {{{kBlank, 0, 1}, {kLetters, 1, kMany}}},
    {{{kBlank, 0, 1}, {kDigit, 1, kMany}}},
    {{{kBlank, 0, 1}, {kRest, 1, kMany}}},
    {{{kSpaces, 1, kMany}}, true},
    {{{kSpaces, 1, kMany}}}};

std::string utf8(const std::u32string& text) {
  std::string out;
  for (char32_t c : text) append_utf8(out, c);
  return out;
}

Pieces slow_cut(const std::vector<Alternative>& alternatives, const std::u32string& text) {
  Pieces pieces;
  for (int at = 0; at < static_cast<int>(text.size());) {
    int end = -1;
    for (const Alternative& alternative : alternatives) {
      end = match(alternative, 0, text, at);
      if (end >= 0) break;
    }
    if (end <= at) {
      ADD_FAILURE() << "nothing matches";
      break;
    }
    pieces.push_back(utf8(text.substr(static_cast<size_t>(at), static_cast<size_t>(end - at))));
    at = end;
  }
  return pieces;
}

Pieces slow_cut_smollm(const std::u32string& text) {
  Pieces pieces;
  std::u32string between;
  auto flush = [&] {
    for (std::string& piece : slow_cut(kGpt2, between)) pieces.push_back(std::move(piece));
    between.clear();
  };
  for (char32_t c : text) {
    if (property(c) != kDigit) {
      between.push_back(c);
      continue;
    }
    flush();
    pieces.push_back(utf8(std::u32string(1, c)));
  }
  flush();
  return pieces;
}

// Calls test(text) for all strings of 1 to `longest` characters of `alphabet`; stops at a failure.
template <class Test>
void for_all_strings(const std::u32string& alphabet, size_t longest, const Test& test) {
  for (size_t length = 1; length <= longest; ++length) {
    std::vector<size_t> digits(length, 0);
    std::u32string text(length, alphabet[0]);
    for (size_t place = 0; place < length && !::testing::Test::HasFailure();) {
      test(text);
      for (place = 0; place < length; ++place) {
        digits[place] = (digits[place] + 1) % alphabet.size();
        text[place] = alphabet[digits[place]];
        if (digits[place] != 0) break;
      }
    }
  }
}

TEST(pre_tokenizer, tekken_scanner_equals_the_expression_on_all_short_strings) {
  for_all_strings(U"aA中\u03011. \n/\t", 5, [](const std::u32string& text) {
    std::string bytes = utf8(text);
    EXPECT_EQ(cut(next_tekken_piece, bytes), slow_cut(kTekken, text)) << bytes;
  });
}

TEST(pre_tokenizer, gpt2_scanner_equals_the_expression_on_all_short_strings) {
  for_all_strings(U"slA\u03011.' \n", 5, [](const std::u32string& text) {
    std::string bytes = utf8(text);
    EXPECT_EQ(cut(next_gpt2_piece, bytes), slow_cut(kGpt2, text)) << bytes;
  });
}

TEST(pre_tokenizer, smollm_scanner_equals_cutting_at_numbers_first_on_all_short_strings) {
  for_all_strings(U"slA中1.' \t", 5, [](const std::u32string& text) {
    std::string bytes = utf8(text);
    EXPECT_EQ(cut(next_smollm_piece, bytes), slow_cut_smollm(text)) << bytes;
  });
}

TEST(pre_tokenizer, all_contractions_of_gpt2_are_known_in_lower_case_only) {
  EXPECT_EQ(cut(next_gpt2_piece, "I's't're've'm'll'd'S"),
            (Pieces{"I", "'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'", "S"}));
}

TEST(pre_tokenizer, published_examples_of_tekken_are_cut_alike) {
  EXPECT_EQ(cut(next_tekken_piece, "camelCaseXMLHttp"), (Pieces{"camel", "Case", "XMLHttp"}));
  EXPECT_EQ(cut(next_tekken_piece, "HELLOworld helloWORLD"),
            (Pieces{"HELLOworld", " hello", "WORLD"}));
  EXPECT_EQ(cut(next_tekken_piece, "\u01c4\u01c6\u01c5"), (Pieces{"\u01c4\u01c6", "\u01c5"}));
  EXPECT_EQ(cut(next_tekken_piece, "==> // c\n"), (Pieces{"==>", " //", " c", "\n"}));
}

TEST(unicode_tables, classes_are_those_of_unicode_16) {
  EXPECT_EQ(char_class('\n'), CharClass::newline);
  for (uint32_t c : {0x09u, 0x0Bu, 0x20u, 0x85u, 0xA0u, 0x1680u, 0x200Au, 0x2028u, 0x202Fu, 0x205Fu, 0x3000u}) {
    EXPECT_EQ(char_class(c), CharClass::space) << c;
  }
  for (uint32_t c : {0x00u, 0x1Cu, 0x1Fu, 0x180Eu, 0x200Bu, 0xFEFFu, 0x378u, 0xE000u, 0x10FFFFu}) {
    EXPECT_EQ(char_class(c), CharClass::rest) << c;
  }
  EXPECT_EQ(char_class(0x1C5), CharClass::upper);         // Lt
  EXPECT_EQ(char_class(0x1C89), CharClass::upper);        // new in 16
  EXPECT_EQ(char_class(0x2B0), CharClass::other_letter);  // Lm
  EXPECT_EQ(char_class(0x10D40), CharClass::number);      // Garay digit, new in 16
  EXPECT_EQ(char_class(0xA7CE), CharClass::rest);         // a letter only since 17
  EXPECT_EQ(char_class(0x20DD), CharClass::mark);         // Me
  EXPECT_EQ(char_class(0x00BD), CharClass::number);       // No
  EXPECT_EQ(char_class(0x2167), CharClass::number);       // Nl
  uint32_t counts[8] = {};
  for (uint32_t c = 0; c <= 0x10FFFF; ++c) ++counts[static_cast<int>(char_class(c))];
  EXPECT_EQ(counts[static_cast<int>(CharClass::newline)], 2u);
  EXPECT_EQ(counts[static_cast<int>(CharClass::space)], 23u);
}

}  // namespace
}  // namespace bise
