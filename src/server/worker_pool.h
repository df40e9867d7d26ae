// Threads for work that waits: one per request under way, made when needed and kept.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace bise {

class WorkerPool {
 public:
  explicit WorkerPool(size_t max_threads) : max_threads_(max_threads) {}
  ~WorkerPool() { stop(); }
  // Waits for what runs; what has not begun is dropped. post() refuses from now on.
  void stop();

  // False when all threads are busy and no more may be made.
  bool post(std::function<void()> work);

 private:
  void loop();

  const size_t max_threads_;
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::function<void()>> queue_;
  std::vector<std::thread> threads_;
  size_t idle_ = 0;
  bool stopping_ = false;
};

}  // namespace bise
