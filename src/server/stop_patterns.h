// Stop strings and stop regexes of a request, compiled to one automaton: what ends an answer is found in
// time linear in its text, whatever the patterns are.
//
// A regex knows literals, . [classes] \d \w \s and their opposites, escapes (\n \t \r \f \v \0 \xHH \uHHHH),
// groups, alternatives, * + ? {m,n}, and (?i) (?s) at its front; \d \w \s and (?i) mean ASCII. An answer
// ends with the first character that completes a match, so lazy and greedy repetition are the same.
// Anchors, look-around and back references are refused, and so is a pattern that matches the empty text.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace bise {

class StopPatterns {
 public:
  // Error: a regex that is none, that would match nothing at all, or that is too large; its message
  // quotes the regex.
  static Result<std::shared_ptr<const StopPatterns>> compile(const std::vector<std::string>& texts, const std::vector<std::string>& regexes);

  // What a match says as its reason: the text, or the regex as it was given.
  const std::string& name(int32_t pattern) const { return names_[static_cast<size_t>(pattern)]; }

  struct Range {
    uint32_t first = 0, last = 0;  // code points, both included
  };
  struct State {
    enum class Kind : uint8_t { ranges, split, match };
    Kind kind = Kind::match;
    int32_t next = -1, other = -1;      // ranges: next; split: both
    int32_t ranges_begin = 0, ranges_end = 0;
    int32_t pattern = -1;               // match
  };
  const std::vector<State>& states() const { return states_; }
  const std::vector<int32_t>& starts() const { return starts_; }
  bool takes(const State& state, uint32_t code_point) const;

 private:
  friend class PatternCompiler;
  std::vector<State> states_;
  std::vector<Range> ranges_;
  std::vector<int32_t> starts_;  // one of each pattern
  std::vector<std::string> names_;
};

}  // namespace bise
