#include "server/stop_patterns.h"

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>

#include "base/utf8.h"

namespace bise {
namespace {

using Range = StopPatterns::Range;
using State = StopPatterns::State;
constexpr uint32_t kLastCodePoint = 0x10FFFF;
constexpr int kMaxDepth = 50, kMaxRepeat = 1000;
constexpr size_t kMaxStates = 16384, kMaxRanges = 65536;
constexpr int kMaxWork = 100000;  // of compiling one regex: repetitions of repetitions multiply

struct Node {
  enum class Kind : uint8_t { ranges, sequence, choice, repeat };
  Kind kind = Kind::sequence;
  std::vector<Range> ranges;
  std::vector<Node> parts;  // repeat: one
  int least = 0, most = 0;  // repeat; most -1: any number
};

Error refused_regex(const std::string& regex, const std::string& what) {
  std::string shown = regex.substr(0, 200);
  shown.resize(shown.size() - incomplete_utf8_tail(shown));
  return Error(ErrorCode::invalid_argument, "the regex \"" + shown + "\" cannot be used: " + what);
}

std::vector<Range> merged(std::vector<Range> ranges) {
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.first < b.first; });
  std::vector<Range> out;
  for (const Range& range : ranges) {
    if (!out.empty() && range.first <= out.back().last + 1) out.back().last = std::max(out.back().last, range.last);
    else out.push_back(range);
  }
  return out;
}

std::vector<Range> opposite(const std::vector<Range>& ranges) {
  std::vector<Range> out;
  uint32_t from = 0;
  for (const Range& range : merged(ranges)) {
    if (range.first > from) out.push_back({from, range.first - 1});
    from = range.last + 1;
  }
  if (from <= kLastCodePoint) out.push_back({from, kLastCodePoint});
  return out;
}

// Both cases of what is an ASCII letter.
void fold(std::vector<Range>& ranges) {
  const size_t count = ranges.size();
  for (size_t i = 0; i < count; ++i) {
    for (const auto& [from, to] : {std::pair<uint32_t, uint32_t>{'a', 'A'}, {'A', 'a'}}) {
      const uint32_t first = std::max(ranges[i].first, from), last = std::min(ranges[i].last, from + 25);
      if (first <= last) ranges.push_back({first - from + to, last - from + to});
    }
  }
}

// \d \w \s and their opposites.
std::optional<std::vector<Range>> named_class(uint32_t letter) {
  std::vector<Range> out;
  switch (letter | 0x20) {
    case 'd': out = {{'0', '9'}}; break;
    case 'w': out = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}; break;
    case 's': out = {{'\t', '\r'}, {' ', ' '}}; break;
    default: return std::nullopt;
  }
  return (letter & 0x20) != 0 ? out : opposite(out);
}

class RegexParser {
 public:
  explicit RegexParser(const std::string& text) : text_(text) {
    for (size_t at = 0; at < text.size();) {
      const CodePoint point = decode_utf8(text, at);
      points_.push_back(point.value);
      at += point.length;
    }
  }

  Result<Node> parse() {
    TRY(flags());
    Node node = TRY(choice(0));
    if (at_ < points_.size()) return fault("an unmatched )");
    return node;
  }

 private:
  Error fault(const std::string& what) const { return refused_regex(text_, what); }
  bool more() const { return at_ < points_.size(); }
  bool next_is(uint32_t c, size_t ahead = 0) const { return at_ + ahead < points_.size() && points_[at_ + ahead] == c; }

  Result<void> flags() {
    if (!next_is('(') || !next_is('?', 1)) return {};
    size_t at = at_ + 2;
    for (; at < points_.size() && (points_[at] == 'i' || points_[at] == 's'); ++at) {
      (points_[at] == 'i' ? ignore_case_ : dot_takes_all_) = true;
    }
    if (at > at_ + 2 && at < points_.size() && points_[at] == ')') at_ = at + 1;
    else ignore_case_ = dot_takes_all_ = false;
    return {};
  }

  Result<Node> choice(int depth) {
    if (depth > kMaxDepth) return fault("groups are nested more than " + std::to_string(kMaxDepth) + " deep");
    Node node;
    node.kind = Node::Kind::choice;
    node.parts.push_back(TRY(sequence(depth)));
    while (next_is('|')) {
      ++at_;
      node.parts.push_back(TRY(sequence(depth)));
    }
    if (node.parts.size() > 1) return node;
    Node only = std::move(node.parts[0]);
    return only;
  }

  Result<Node> sequence(int depth) {
    Node node;
    while (more() && !next_is('|') && !next_is(')')) {
      Node part = TRY(atom(depth));
      for (;;) {
        std::optional<std::pair<int, int>> times = TRY(repetition());
        if (!times) break;
        if (part.kind == Node::Kind::repeat) return fault("a repetition is repeated");
        Node repeat;
        repeat.kind = Node::Kind::repeat;
        std::tie(repeat.least, repeat.most) = *times;
        repeat.parts.push_back(std::move(part));
        part = std::move(repeat);
        if (next_is('?')) ++at_;  // lazy
      }
      node.parts.push_back(std::move(part));
    }
    return node;
  }

  Result<std::optional<std::pair<int, int>>> repetition() {
    using Times = std::optional<std::pair<int, int>>;
    if (!more()) return Times();
    switch (points_[at_]) {
      case '*': ++at_; return Times({0, -1});
      case '+': ++at_; return Times({1, -1});
      case '?': ++at_; return Times({0, 1});
      case '{': break;
      default: return Times();
    }
    size_t at = at_ + 1;
    auto number = [&]() -> int {
      int value = -1;
      for (; at < points_.size() && points_[at] >= '0' && points_[at] <= '9'; ++at) {
        value = std::min(kMaxRepeat + 1, std::max(value, 0) * 10 + static_cast<int>(points_[at] - '0'));
      }
      return value;
    };
    const int least = number();
    int most = least;
    if (at < points_.size() && points_[at] == ',') {
      ++at;
      most = number();
    }
    if (least < 0 || at >= points_.size() || points_[at] != '}') return Times();  // a brace like any other character
    if (least > kMaxRepeat || most > kMaxRepeat) return fault("something is repeated more than " + std::to_string(kMaxRepeat) + " times");
    if (most >= 0 && most < least) return fault("a repetition has its numbers the wrong way round");
    at_ = at + 1;
    return Times({least, most});
  }

  Result<Node> atom(int depth) {
    const uint32_t c = points_[at_];
    switch (c) {
      case '(': return group(depth);
      case '[': return bracket();
      case '.': {
        ++at_;
        return ranges_node(dot_takes_all_ ? std::vector<Range>{{0, kLastCodePoint}} : opposite({{'\n', '\n'}}));
      }
      case '*': case '+': case '?': return fault("there is nothing in front of a repetition");
      case '^': case '$': return fault("anchors (^ $ \\b) are not known to it");
      case '\\': return escape_node();
      default: ++at_; return character(c);
    }
  }

  Result<Node> group(int depth) {
    ++at_;
    if (next_is('?')) {
      if (!next_is(':', 1)) return fault("look-around, named groups and flags inside are not known to it");
      at_ += 2;
    }
    Node node = TRY(choice(depth + 1));
    if (!next_is(')')) return fault("a ( without its )");
    ++at_;
    return node;
  }

  Result<Node> escape_node() {
    if (at_ + 1 < points_.size()) {
      if (auto named = named_class(points_[at_ + 1])) {
        at_ += 2;
        return ranges_node(*std::move(named));
      }
    }
    return character(TRY(escaped()));
  }

  // The character behind a backslash.
  Result<uint32_t> escaped() {
    ++at_;
    if (!more()) return fault("a backslash at its end");
    const uint32_t c = points_[at_++];
    switch (c) {
      case 'n': return uint32_t{'\n'};
      case 't': return uint32_t{'\t'};
      case 'r': return uint32_t{'\r'};
      case 'f': return uint32_t{'\f'};
      case 'v': return uint32_t{'\v'};
      case '0': return uint32_t{0};
      case 'x': return hex(2);
      case 'u': return hex(4);
      default: break;
    }
    const bool is_word = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (is_word) return fault(std::string("\\") + static_cast<char>(c) + " is not known to it");
    return c;
  }

  Result<uint32_t> hex(int digits) {
    uint32_t value = 0;
    for (int i = 0; i < digits; ++i, ++at_) {
      if (!more()) return fault("a cut escape");
      const uint32_t c = points_[at_], letter = c | 0x20;
      if (c >= '0' && c <= '9') value = value * 16 + (c - '0');
      else if (letter >= 'a' && letter <= 'f') value = value * 16 + (letter - 'a' + 10);
      else return fault("a cut escape");
    }
    return value;
  }

  Result<Node> bracket() {
    ++at_;
    const bool is_negated = next_is('^');
    if (is_negated) ++at_;
    std::vector<Range> ranges;
    for (bool is_first = true; !next_is(']') || is_first; is_first = false) {
      if (!more()) return fault("a [ without its ]");
      if (next_is('\\') && at_ + 1 < points_.size()) {
        if (auto named = named_class(points_[at_ + 1])) {
          ranges.insert(ranges.end(), named->begin(), named->end());
          at_ += 2;
          continue;
        }
      }
      const uint32_t first = TRY(class_character());
      uint32_t last = first;
      if (next_is('-') && at_ + 1 < points_.size() && !next_is(']', 1)) {
        ++at_;
        last = TRY(class_character());
        if (last < first) return fault("a range of characters the wrong way round");
      }
      ranges.push_back({first, last});
    }
    ++at_;
    if (ignore_case_) fold(ranges);
    return ranges_node(is_negated ? opposite(ranges) : merged(std::move(ranges)));
  }

  Result<uint32_t> class_character() {
    if (next_is('\\')) return escaped();
    return points_[at_++];
  }

  Result<Node> character(uint32_t c) {
    std::vector<Range> ranges{{c, c}};
    if (ignore_case_) fold(ranges);
    return ranges_node(std::move(ranges));
  }

  Result<Node> ranges_node(std::vector<Range> ranges) {
    Node node;
    node.kind = Node::Kind::ranges;
    node.ranges = std::move(ranges);
    return node;
  }

  const std::string& text_;
  std::vector<uint32_t> points_;
  size_t at_ = 0;
  bool ignore_case_ = false, dot_takes_all_ = false;
};

}  // namespace

// Thompson's construction, from the end to the front: each part is told where it goes on.
class PatternCompiler {
 public:
  explicit PatternCompiler(StopPatterns& out) : out_(out) {}

  int32_t add_match() {
    State state;
    state.pattern = static_cast<int32_t>(out_.names_.size());
    return push(state);
  }
  void add_pattern(int32_t start, const std::string& name) {
    out_.starts_.push_back(start);
    out_.names_.push_back(name);
  }
  bool is_too_large() const { return out_.states_.size() > kMaxStates || out_.ranges_.size() > kMaxRanges || work_ > kMaxWork; }
  void begin_pattern() { work_ = 0; }

  int32_t add_ranges(const std::vector<Range>& ranges, int32_t next) {
    State state;
    state.kind = State::Kind::ranges;
    state.next = next;
    state.ranges_begin = static_cast<int32_t>(out_.ranges_.size());
    out_.ranges_.insert(out_.ranges_.end(), ranges.begin(), ranges.end());
    state.ranges_end = static_cast<int32_t>(out_.ranges_.size());
    return push(state);
  }

  // The first state of the node; -1 as soon as it is too large.
  int32_t compile(const Node& node, int32_t next) {
    ++work_;
    if (next < 0 || is_too_large()) return -1;
    switch (node.kind) {
      case Node::Kind::ranges: return add_ranges(node.ranges, next);
      case Node::Kind::sequence:
        for (size_t i = node.parts.size(); i-- > 0;) next = compile(node.parts[i], next);
        return next;
      case Node::Kind::choice: {
        int32_t start = compile(node.parts.back(), next);
        for (size_t i = node.parts.size() - 1; i-- > 0;) start = split(compile(node.parts[i], next), start);
        return start;
      }
      case Node::Kind::repeat: {
        const Node& part = node.parts[0];
        if (node.most < 0) {
          const int32_t loop = split(next, next);
          const int32_t body = compile(part, loop);
          out_.states_[static_cast<size_t>(loop)].other = body;
          next = body < 0 ? -1 : loop;
        } else {
          const int32_t end = next;
          for (int i = node.least; i < node.most && next >= 0; ++i) next = split(compile(part, next), end);
        }
        for (int i = 0; i < node.least && next >= 0; ++i) next = compile(part, next);
        return next;
      }
    }
    return -1;
  }

 private:
  int32_t push(const State& state) {
    out_.states_.push_back(state);
    return static_cast<int32_t>(out_.states_.size()) - 1;
  }
  int32_t split(int32_t next, int32_t other) {
    if (next < 0 || other < 0) return -1;
    State state;
    state.kind = State::Kind::split;
    state.next = next;
    state.other = other;
    return push(state);
  }

  StopPatterns& out_;
  int work_ = 0;
};

bool StopPatterns::takes(const State& state, uint32_t c) const {
  for (int32_t i = state.ranges_begin; i < state.ranges_end; ++i) {
    const Range& range = ranges_[static_cast<size_t>(i)];
    if (c >= range.first && c <= range.last) return true;
  }
  return false;
}

namespace {

// Whether a match is reached without any character.
bool matches_empty(const StopPatterns& patterns, int32_t start) {
  std::vector<int32_t> open{start};
  std::vector<bool> seen(patterns.states().size());
  while (!open.empty()) {
    const auto at = static_cast<size_t>(open.back());
    open.pop_back();
    if (seen[at]) continue;
    seen[at] = true;
    const State& state = patterns.states()[at];
    if (state.kind == State::Kind::match) return true;
    if (state.kind == State::Kind::split) open.insert(open.end(), {state.next, state.other});
  }
  return false;
}

}  // namespace

Result<std::shared_ptr<const StopPatterns>> StopPatterns::compile(const std::vector<std::string>& texts, const std::vector<std::string>& regexes) {
  auto out = std::make_shared<StopPatterns>();
  PatternCompiler compiler(*out);
  for (const std::string& text : texts) {
    std::vector<uint32_t> points;
    for (size_t at = 0; at < text.size();) {
      const CodePoint point = decode_utf8(text, at);
      points.push_back(point.value);
      at += point.length;
    }
    int32_t next = compiler.add_match();
    for (size_t i = points.size(); i-- > 0;) next = compiler.add_ranges({{points[i], points[i]}}, next);
    compiler.add_pattern(next, text);
  }
  for (const std::string& regex : regexes) {
    const Node node = TRY(RegexParser(regex).parse());
    compiler.begin_pattern();
    const int32_t start = compiler.compile(node, compiler.add_match());
    if (start < 0 || compiler.is_too_large()) return refused_regex(regex, "it is too large (repetitions multiply)");
    if (matches_empty(*out, start)) return refused_regex(regex, "it matches the empty text, which is everywhere");
    compiler.add_pattern(start, regex);
  }
  return std::shared_ptr<const StopPatterns>(std::move(out));
}

}  // namespace bise
