#include "backend/cuda/queue.h"

#include <algorithm>
#include <utility>

namespace bise::gpu {
namespace {

constexpr size_t kMostGraphs = 16;
constexpr size_t kLeastCommands = 8;  // fewer are as soon started one by one

}  // namespace

Queue::~Queue() {
  for (Replayed& r : replayed_) release_graph(r.graph);
}

Result<void> Queue::flush() {
  if (commands_.empty()) return {};
  const std::vector<Command> commands = std::exchange(commands_, {});
  commands_.reserve(commands.size());
  if (commands.size() >= kLeastCommands) {
    auto found = std::ranges::find_if(replayed_, [&](const Replayed& r) { return r.commands == commands; });
    if (found == replayed_.end() && commands == last_) {
      if (replayed_.size() == kMostGraphs) {
        TRY(synchronize(stream_));  // it may be running
        release_graph(replayed_.front().graph);
        replayed_.erase(replayed_.begin());
      }
      const Graph graph = TRY(record_graph(stream_, commands));
      found = replayed_.insert(replayed_.end(), {commands, graph});
    }
    if (found != replayed_.end()) {
      std::rotate(found, found + 1, replayed_.end());
      replay(stream_, replayed_.back().graph);
      ++num_replays_;
      return {};
    }
  }
  for (const Command& c : commands) c.start(c, stream_);
  last_ = commands;
  return {};
}

}  // namespace bise::gpu
