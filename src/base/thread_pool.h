// Fixed workers and parallel_for over ranges. Owned by whoever needs one; the caller takes part.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace bise {

// A loop over fewer numbers than this, one after the other, is soon done by the caller alone.
constexpr int64_t kSerialElements = 8 << 10;

// One parallel_for at a time (the caller's thread is worker 0). Workers spin for a short while
// between loops, because a decode step has hundreds of them, and then sleep.
class ThreadPool {
 public:
  // num_threads counts the caller: 1 means no workers. When the system refuses a thread the pool is
  // smaller than asked.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

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
