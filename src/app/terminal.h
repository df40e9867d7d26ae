// The program's side of a terminal: what goes to stdout and how its failure is noticed, progress
// bars and dimming where a person watches, Ctrl-C. The only place with signal handlers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace bise {

bool stdout_is_terminal();
bool stderr_is_terminal();
bool stdin_is_terminal();

// Writes to stdout and flushes. A reader that went away or a full disk is an Error, never a signal.
Result<void> write_output(std::string_view text);

// One bar on stderr, drawn only when stderr is a terminal and the work lasts long enough to be
// seen.
class ProgressBar {
 public:
  explicit ProgressBar(std::string label);
  ~ProgressBar() { clear(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  void update(uint64_t done, uint64_t total);
  void clear();

 private:
  std::string label_;
  bool enabled_, drawn_ = false;
  double started_, drawn_at_ = 0;
};

// SIGINT sets a flag instead of ending the program, and a closed pipe becomes a failed write.
//   exit_on_second  a second SIGINT before the flag was cleared ends the program at once with exit
//   code
//                   130, so that nothing can hold the user
//   never_exit      for the conversation, where Ctrl-C only ever stops an answer
enum class InterruptRule { exit_on_second, never_exit };
void handle_signals(InterruptRule rule = InterruptRule::exit_on_second);
// From now on SIGTERM counts as Ctrl-C.
void handle_termination();
bool interrupted();
void clear_interrupt();

// Seconds of a steady clock.
double now_seconds();

// Text of a model made safe for a terminal: control characters other than newline and tab are
// written as U+FFFD, so that an answer cannot send escape sequences.
std::string terminal_safe(std::string_view text);

// Switches between plain and dimmed text; only emits what changes, nothing when `enabled` is false.
class DimText {
 public:
  explicit DimText(bool enabled) : enabled_(enabled) {}
  std::string set(bool dim);

 private:
  bool enabled_, dim_ = false;
};

}  // namespace bise
