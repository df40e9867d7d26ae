// The launches of a stream, kept until they are flushed. A decode step launches the same kernels with the same
// arguments again and again: from the second time on the device replays them as one graph.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "backend/cuda/device.h"

namespace bise::gpu {

// One launch. `kernel` is of the type that `start` knows.
struct Command {
  static constexpr size_t kMostArgs = 320;
  void (*start)(const Command& command, Stream stream) = nullptr;
  bool (*has_same_args)(const Command& a, const Command& b) = nullptr;
  void (*kernel)() = nullptr;
  int64_t blocks_x = 0, blocks_y = 0;
  int32_t threads = 0, shared_bytes = 0;
  alignas(16) std::byte args[kMostArgs];

  bool operator==(const Command& other) const {
    return start == other.start && kernel == other.kernel && blocks_x == other.blocks_x && blocks_y == other.blocks_y &&
           threads == other.threads && shared_bytes == other.shared_bytes && has_same_args(*this, other);
  }
};

class Queue {
 public:
  explicit Queue(Stream stream) : stream_(stream) {}
  ~Queue();
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  Stream stream() const { return stream_; }
  void add(const Command& command) { commands_.push_back(command); }
  // Starts what was added since the last call. Error (device): the driver refuses a graph.
  Result<void> flush();
  // Flushes that were replays.
  int64_t num_replays() const { return num_replays_; }

 private:
  struct Replayed {
    std::vector<Command> commands;
    Graph graph;
  };

  Stream stream_;
  std::vector<Command> commands_, last_;  // of this flush and of the one before
  std::vector<Replayed> replayed_;        // the one that was used last is the last
  int64_t num_replays_ = 0;
};

}  // namespace bise::gpu
