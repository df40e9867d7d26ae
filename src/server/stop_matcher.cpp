#include "server/stop_matcher.h"

#include <utility>

#include "base/utf8.h"

namespace bise {

using State = StopPatterns::State;

StopMatcher::StopMatcher(std::shared_ptr<const StopPatterns> patterns, bool include_stop)
    : patterns_(std::move(patterns)), include_stop_(include_stop) {
  if (patterns_) seen_.resize(patterns_->states().size());
}

// Adds the state and all that are reached from it without a character. Earlier starts come first, so
// whoever reached a state before has the longer match.
void StopMatcher::follow(int32_t first, size_t start) {
  open_.assign(1, first);
  while (!open_.empty()) {
    const int32_t at = open_.back();
    open_.pop_back();
    uint32_t& seen = seen_[static_cast<size_t>(at)];
    if (seen == step_) continue;
    seen = step_;
    const State& state = patterns_->states()[static_cast<size_t>(at)];
    switch (state.kind) {
      case State::Kind::split:
        open_.push_back(state.other);
        open_.push_back(state.next);
        break;
      case State::Kind::ranges: threads_.push_back({at, start}); break;
      case State::Kind::match:
        if (!match_ || start < match_->start || (start == match_->start && state.pattern < match_->state)) match_ = {state.pattern, start};
        break;
    }
  }
}

void StopMatcher::push(std::string_view text, std::string& out) {
  if (found_) return;
  if (!patterns_) {
    out += text;
    return;
  }
  size_t at = held_.size();
  held_ += text;
  while (at < held_.size()) {
    const CodePoint point = decode_utf8(held_, at);
    // A match may begin here.
    for (int32_t start : patterns_->starts()) follow(start, at);
    std::swap(threads_, before_);
    threads_.clear();
    ++step_;
    at += point.length;
    for (const Thread& thread : before_) {
      const State& state = patterns_->states()[static_cast<size_t>(thread.state)];
      if (patterns_->takes(state, point.value)) follow(state.next, thread.start);
    }
    if (!match_) continue;
    out.append(held_, 0, include_stop_ ? at : match_->start);
    found_ = patterns_->name(match_->state);
    held_.clear();
    return;
  }
  const size_t certain = threads_.empty() ? held_.size() : threads_.front().start;
  out.append(held_, 0, certain);
  held_.erase(0, certain);
  for (Thread& thread : threads_) thread.start -= certain;
}

void StopMatcher::flush(std::string& out) {
  if (!found_) out += held_;
  held_.clear();
  threads_.clear();
  ++step_;
}

}  // namespace bise
