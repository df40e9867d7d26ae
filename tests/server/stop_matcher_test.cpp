#include "server/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>
#include <regex>

namespace bise {
namespace {

std::shared_ptr<const StopPatterns> compiled(const std::vector<std::string>& texts, const std::vector<std::string>& regexes = {}) {
  auto patterns = StopPatterns::compile(texts, regexes);
  EXPECT_TRUE(patterns) << patterns.error().message();
  return *patterns;
}

std::string through(StopMatcher& matcher, const std::string& text, size_t step) {
  std::string out;
  for (size_t at = 0; at < text.size(); at += step) matcher.push(text.substr(at, step), out);
  if (!matcher.found()) matcher.flush(out);
  return out;
}

std::string fault(const std::string& regex) {
  auto patterns = StopPatterns::compile({}, {regex});
  return patterns ? "accepted" : patterns.error().message();
}

TEST(StopMatcher, finds_the_first_stop_however_the_text_is_cut) {
  const std::string text = "one two ENDING three STOP";
  const auto patterns = compiled({"STOP", "END"});
  for (size_t step = 1; step <= text.size(); ++step) {
    StopMatcher without(patterns, false), with(patterns, true);
    EXPECT_EQ(through(without, text, step), "one two ");
    EXPECT_EQ(through(with, text, step), "one two END");
    EXPECT_EQ(without.found().value_or(""), "END");
  }
}

TEST(StopMatcher, takes_what_is_complete_first_and_of_those_the_longest) {
  const auto patterns = compiled({"bc", "abcd", "xbc"});
  for (size_t step = 1; step < 8; ++step) {
    StopMatcher first(patterns, false), longest(patterns, false);
    EXPECT_EQ(through(first, "abcd", step), "a");
    EXPECT_EQ(through(longest, "axbcd", step), "a");
    EXPECT_EQ(longest.found().value_or(""), "xbc");
  }
}

TEST(StopMatcher, gives_all_text_when_nothing_is_found) {
  const auto patterns = compiled({"aab", "aaaa"});
  for (size_t step = 1; step < 8; ++step) {
    StopMatcher matcher(patterns, false);
    EXPECT_EQ(through(matcher, "aaacaaaXaa", step), "aaacaaaXaa");
    EXPECT_FALSE(matcher.found());
  }
  StopMatcher none;
  EXPECT_EQ(through(none, "abc", 2), "abc");
}

TEST(StopMatcher, holds_back_only_what_could_begin_a_stop) {
  StopMatcher matcher(compiled({"</s>"}), false);
  std::string out;
  matcher.push("a<b</", out);
  EXPECT_EQ(out, "a<b");
  matcher.push("x", out);
  EXPECT_EQ(out, "a<b</x");
}

TEST(StopMatcher, begins_anew_after_what_is_no_text) {
  StopMatcher matcher(compiled({"ab"}), false);
  std::string out;
  matcher.push("a", out);
  matcher.flush(out);
  matcher.push("b", out);
  EXPECT_EQ(out, "ab");
  EXPECT_FALSE(matcher.found());
}

// The slow twin: every part of the text against the standard library's regex; the first end, then the
// first start.
std::pair<size_t, size_t> first_match(const std::string& pattern, const std::string& text) {
  const std::regex regex(pattern);
  for (size_t end = 1; end <= text.size(); ++end) {
    for (size_t start = 0; start < end; ++start) {
      if (std::regex_match(text.substr(start, end - start), regex)) return {start, end};
    }
  }
  return {text.size(), text.size()};
}

TEST(StopMatcher, regexes_match_as_those_of_the_standard_library) {
  const char* patterns[] = {"ab",        "a|bc",     "a+b",      "(ab)+c",   "[ab]c",      "[^ab]",     "a.c",          "a{2}",      "a{2,}b", "a{1,3}c",
                            "(a|b)*c",   "(a|ab)(c|bcd)", "\\d\\w", "\\s[a-c]+", "a?b?c",   "(?:a|b){2}c", "x*y|[a-c]{3}", "((a|b)+c)+d", "\\.b", "[\\d.]+c",
                            "(a+)+b",    "(a*)*b",   "[a\\-c]b", "[]a]b",    "a*?b",       "(ab?){2,3}c"};
  std::mt19937 random(7);
  const std::string letters = "aaabbccd. 1xy-]";
  int found = 0;
  for (const char* pattern : patterns) {
    const auto compiled_pattern = compiled({}, {pattern});
    std::string twin = pattern;
    if (twin == "[]a]b") twin = "[\\]a]b";  // ECMAScript ends the class at once
    for (int i = 0; i < 60; ++i) {
      std::string text;
      for (size_t length = random() % 14; text.size() < length;) text += letters[random() % letters.size()];
      const auto [start, end] = first_match(twin, text);
      StopMatcher without(compiled_pattern, false), with(compiled_pattern, true);
      EXPECT_EQ(through(without, text, 1 + random() % 3), text.substr(0, start)) << pattern << " in " << text;
      EXPECT_EQ(through(with, text, 1 + random() % 3), text.substr(0, end)) << pattern << " in " << text;
      found += with.found() ? 1 : 0;
    }
  }
  EXPECT_GT(found, 300);
}

TEST(StopMatcher, characters_count_and_not_bytes) {
  StopMatcher any(compiled({}, {"\xC3\xA4.b"}), false);
  EXPECT_EQ(through(any, "x\xC3\xA4\xE2\x82\xAC" "b", 100), "x");
  StopMatcher range(compiled({}, {"[\\u00e0-\\u00ff]"}), false);
  EXPECT_EQ(through(range, "a\xC3\x9F\xC3\xA9", 100), "a\xC3\x9F");
  StopMatcher folded(compiled({}, {"(?i)end[x-z]"}), false);
  EXPECT_EQ(through(folded, "a ENDY", 1), "a ");
  StopMatcher lines(compiled({}, {"(?s)a.b"}), false), line(compiled({}, {"a.b"}), false);
  EXPECT_EQ(through(lines, "xa\nb", 1), "x");
  EXPECT_EQ(through(line, "xa\nb", 1), "xa\nb");
}

TEST(StopMatcher, cost_is_linear_where_others_try_everything) {
  StopMatcher matcher(compiled({}, {"(a|a)*(a|aa)+((a*)*)*b"}), false);
  std::string out;
  for (int i = 0; i < 1000; ++i) matcher.push("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", out);
  EXPECT_FALSE(matcher.found());
  EXPECT_EQ(out, "");
  matcher.push("b", out);
  EXPECT_TRUE(matcher.found());
}

TEST(StopMatcher, regexes_that_cannot_be_used_are_refused) {
  EXPECT_EQ(fault("a("), "the regex \"a(\" cannot be used: a ( without its )");
  for (const char* regex : {"", "a*", "(|a)", "a)", "[a", "[b-a]", "a\\", "\\q", "\\1", "^a", "a$", "\\bx", "(?=a)", "(?<n>a)", "*a", "a**", "a{3,2}",
                            "a{1001}", "((a{100}){100}){100}", "(((){1000}){1000}){1000}a", "\\x1", "\\u12G4"}) {
    EXPECT_NE(fault(regex), "accepted") << regex;
  }
  EXPECT_EQ(fault("a{,2}"), "accepted");  // as Perl reads it: the characters themselves
  EXPECT_EQ(fault(std::string(200, '(')).substr(0, 9), "the regex");
}

}  // namespace
}  // namespace bise
