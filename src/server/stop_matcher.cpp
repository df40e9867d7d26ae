#include "server/stop_matcher.h"

#include <algorithm>

namespace bise {

void StopMatcher::push(std::string_view text, std::string& out) {
  if (found_) return;
  if (stops_.empty()) {
    out += text;
    return;
  }
  held_ += text;
  size_t first = std::string::npos;
  const std::string* which = nullptr;
  for (const std::string& stop : stops_) {
    const size_t at = held_.find(stop);
    if (at < first) {
      first = at;
      which = &stop;
    }
  }
  if (which != nullptr) {
    out.append(held_, 0, include_stop_ ? first + which->size() : first);
    found_ = *which;
    held_.clear();
    return;
  }
  // The longest end of the text that is the beginning of a stop string stays.
  size_t keep = 0;
  for (const std::string& stop : stops_) {
    for (size_t length = std::min(stop.size() - 1, held_.size()); length > keep; --length) {
      if (held_.compare(held_.size() - length, length, stop, 0, length) == 0) {
        keep = length;
        break;
      }
    }
  }
  out.append(held_, 0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
}

void StopMatcher::flush(std::string& out) {
  if (!found_) out += held_;
  held_.clear();
}

}  // namespace bise
