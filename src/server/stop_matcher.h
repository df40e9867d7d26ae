// Stop strings in a text that arrives in pieces: what could be the beginning of one is held back.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bise {

class StopMatcher {
 public:
  StopMatcher(std::vector<std::string> stops, bool include_stop)
      : stops_(std::move(stops)), include_stop_(include_stop) {}

  // Appends to `out` what is certain not to belong to a stop string. Once one was found (the earliest;
  // of several at one place the first in the list) nothing more comes out.
  void push(std::string_view text, std::string& out);
  // Gives what was held back, when something else than text follows.
  void flush(std::string& out);
  const std::optional<std::string>& found() const { return found_; }

 private:
  std::vector<std::string> stops_;
  bool include_stop_;
  std::string held_;
  std::optional<std::string> found_;
};

}  // namespace bise
