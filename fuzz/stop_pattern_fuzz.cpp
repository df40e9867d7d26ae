// server/stop_patterns and stop_matcher: any regex compiles or is refused, and what a text gives does not
// depend on how it is cut. The first line is the regex, the rest the text.
#include <algorithm>
#include <cstdint>
#include <string>

#include "base/utf8.h"
#include "server/stop_matcher.h"

namespace {

// Pieces of `step` characters.
std::string through(const std::shared_ptr<const bise::StopPatterns>& patterns, const std::string& text, size_t step, std::string& found) {
  bise::StopMatcher matcher(patterns, false);
  std::string out, piece;
  size_t count = 0;
  for (size_t at = 0; at < text.size();) {
    const bise::CodePoint point = bise::decode_utf8(text, at);
    piece += text.substr(at, point.length);
    at += point.length;
    if (++count % step != 0 && at < text.size()) continue;
    matcher.push(piece, out);
    piece.clear();
  }
  found = matcher.found().value_or("");
  if (!matcher.found()) {
    matcher.flush(out);
    CHECK(out == text);
  }
  CHECK(text.starts_with(out));
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 4096) return 0;
  const std::string input = bise::repair_utf8(std::string_view(reinterpret_cast<const char*>(data), size));
  const size_t line = std::min(input.find('\n'), input.size());
  const std::string regex = input.substr(0, line), text = line < input.size() ? input.substr(line + 1) : "";
  auto patterns = bise::StopPatterns::compile({"</s>"}, {regex});
  if (!patterns) {
    CHECK(bise::is_valid_utf8(patterns.error().message()));
    return 0;
  }
  std::string whole_found, pieces_found;
  const std::string whole = through(*patterns, text, text.size() + 1, whole_found);
  for (size_t step : {size_t{1}, size_t{3}}) {
    CHECK(through(*patterns, text, step, pieces_found) == whole);
    CHECK(pieces_found == whole_found);
  }
  return 0;
}
