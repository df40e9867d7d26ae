// Stop patterns in a text that arrives in pieces: what could be the beginning of one is held back.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/stop_patterns.h"

namespace bise {

// Pieces end between characters. Time: characters times the states that are alive, at most those of the
// patterns.
class StopMatcher {
 public:
  StopMatcher() = default;  // nothing stops
  StopMatcher(std::shared_ptr<const StopPatterns> patterns, bool include_stop);

  // Appends to `out` what is certain not to belong to a stop. Once one was found nothing more comes out:
  // the first that is complete; of those that end at one place the longest, then the first in the list.
  void push(std::string_view text, std::string& out);
  // Gives what was held back, when something else than text follows.
  void flush(std::string& out);
  // The stop text or regex that was found.
  const std::optional<std::string>& found() const { return found_; }

 private:
  struct Thread {
    int32_t state = 0;
    size_t start = 0;  // in held_: where its match would begin
  };
  void follow(int32_t state, size_t start);

  std::shared_ptr<const StopPatterns> patterns_;
  bool include_stop_ = false;
  std::string held_;
  std::vector<Thread> threads_, before_;  // in the order of their starts
  std::vector<uint32_t> seen_;            // by state: the last step that reached it
  std::vector<int32_t> open_;
  uint32_t step_ = 1;
  std::optional<Thread> match_;  // of the current step; `state` is the pattern
  std::optional<std::string> found_;
};

}  // namespace bise
