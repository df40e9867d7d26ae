// Fixed workers and parallel_for over ranges. Owned by whoever needs one; the caller takes part.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

#include "base/memory_nodes.h"

namespace bise {

// A loop over fewer numbers than this, one after the other, is soon done by the caller alone.
constexpr int64_t kSerialElements = 8 << 10;

// One parallel_for at a time (the caller's thread is worker 0). Workers spin for a short while
// between loops, because a decode step has hundreds of them, and then sleep.
//
// With several memory nodes each worker belongs to one and runs on its processors. The workers of a node begin
// with the node's own part of every loop, the same part of the indices each time, and help the others when it is done: a
// part of memory that goes with a part of the indices is read by the processors near to it. The caller counts
// as one of the first node, and is not bound to it.
class ThreadPool {
 public:
  // Workers [first_worker, first_worker + num_workers) and the node they run on.
  struct Group {
    MemoryNode node;
    int first_worker = 0, num_workers = 0;
    int end_worker() const { return first_worker + num_workers; }
  };

  // num_threads counts the caller: 1 means no workers. When the system refuses a thread the pool is
  // smaller than asked. Threads are shared out by the processors of the nodes; one node, or none, binds nobody.
  explicit ThreadPool(int num_threads, std::span<const MemoryNode> nodes = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }
  // One where there is nothing to place.
  std::span<const Group> groups() const;
  // Where the part of a group ends in a loop over [0, count); it begins where that of the group before ends.
  int64_t part_end(size_t group, int64_t count, int64_t grain = 1) const;

  // Runs body(begin, end, worker) over [0, count) in pieces of `grain` (the last may be shorter; they
  // are the same for any number of threads), dynamically shared, and returns when all are done: what
  // the bodies wrote is then visible to the caller. `worker` is in [0, num_threads). The body must not
  // throw and must not start a loop on the same pool.
  template <class Body>
  void parallel_for(int64_t count, int64_t grain, Body&& body) {
    run(
        count, grain,
        [](void* context, int64_t begin, int64_t end, int worker) {
          (*static_cast<std::remove_reference_t<Body>*>(context))(begin, end, worker);
        },
        const_cast<void*>(static_cast<const void*>(&body)));
  }

 private:
  using Call = void (*)(void*, int64_t, int64_t, int);
  void run(int64_t count, int64_t grain, Call call, void* context);
  struct State;
  int num_threads_;
  std::unique_ptr<State> state_;
};

// Cores this process may use (affinity and cgroup quota respected).
int usable_cores();

}  // namespace bise
