#include "server/worker_pool.h"

#include <system_error>

namespace bise {

void WorkerPool::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    queue_.clear();
  }
  ready_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

bool WorkerPool::post(std::function<void()> work) {
  std::lock_guard lock(mutex_);
  if (stopping_) return false;
  if (idle_ <= queue_.size()) {
    if (threads_.size() >= max_threads_) return false;
    try {
      threads_.emplace_back([this] { loop(); });
    } catch (const std::system_error&) {  // the system gives no more threads
      return false;
    }
    ++idle_;  // it takes this or another piece of work
  }
  queue_.push_back(std::move(work));
  ready_.notify_one();
  return true;
}

void WorkerPool::loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    ready_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (stopping_) return;
    std::function<void()> work = std::move(queue_.front());
    queue_.pop_front();
    --idle_;
    lock.unlock();
    work();
    work = nullptr;
    lock.lock();
    ++idle_;
  }
}

}  // namespace bise
