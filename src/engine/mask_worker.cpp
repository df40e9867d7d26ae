#include "engine/mask_worker.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>

namespace bise {
namespace {

// Without the lock: the job is the caller's alone while it is `running`.
void fill(MaskJob& job) {
  std::fill(job.bits.begin(), job.bits.end(), 0u);
  Result<bool> filled = job.mask->fill(job.bits);
  job.result = filled ? Result<void>() : Result<void>(filled.error());
  job.is_limited = filled && *filled;
}

}  // namespace

MaskJob::MaskJob(std::unique_ptr<TokenMask> m, int32_t vocab_size)
    : mask(std::move(m)), bits((static_cast<size_t>(vocab_size) + 31) / 32) {}

struct MaskWorker::State {
  std::mutex jobs_lock;
  std::condition_variable job_queued, job_done;
  std::deque<std::shared_ptr<MaskJob>> queue;
  bool stopping = false;
  bool has_thread = true;  // false: the system refused one, and join() does the work
  std::thread thread;      // from the first job on

  void run() {
    std::unique_lock lock(jobs_lock);
    for (;;) {
      job_queued.wait(lock, [this] { return stopping || !queue.empty(); });
      if (stopping) return;
      std::shared_ptr<MaskJob> job = std::move(queue.front());
      queue.pop_front();
      job->state = MaskJob::State::running;
      lock.unlock();
      fill(*job);
      lock.lock();
      job->state = MaskJob::State::done;
      job_done.notify_all();
    }
  }
};

MaskWorker::MaskWorker() : state_(std::make_unique<State>()) {}

MaskWorker::~MaskWorker() {
  {
    std::lock_guard lock(state_->jobs_lock);
    state_->stopping = true;
  }
  state_->job_queued.notify_all();
  if (state_->thread.joinable()) state_->thread.join();
}

void MaskWorker::start(const std::shared_ptr<MaskJob>& job) {
  State& s = *state_;
  if (!s.has_thread) return;
  if (!s.thread.joinable()) {
    try {
      s.thread = std::thread([&s] { s.run(); });
    } catch (const std::system_error&) {
      s.has_thread = false;
      return;
    }
  }
  std::lock_guard lock(s.jobs_lock);
  if (job->state != MaskJob::State::idle) return;
  job->state = MaskJob::State::queued;
  s.queue.push_back(job);
  s.job_queued.notify_one();
}

Result<std::span<const uint32_t>> MaskWorker::join(MaskJob& job) {
  State& s = *state_;
  std::unique_lock lock(s.jobs_lock);
  if (job.state == MaskJob::State::queued) {
    auto is_it = [&job](const auto& queued) { return queued.get() == &job; };
    s.queue.erase(std::find_if(s.queue.begin(), s.queue.end(), is_it));
    job.state = MaskJob::State::idle;
  }
  if (job.state == MaskJob::State::idle) {
    job.state = MaskJob::State::running;
    lock.unlock();
    fill(job);
    lock.lock();
    job.state = MaskJob::State::done;
  }
  s.job_done.wait(lock, [&job] { return job.state == MaskJob::State::done; });
  if (!job.result) return job.result.error();
  return job.is_limited ? std::span<const uint32_t>(job.bits) : std::span<const uint32_t>();
}

void MaskWorker::reset(MaskJob& job) {
  std::lock_guard lock(state_->jobs_lock);
  CHECK(job.state == MaskJob::State::done);
  job.state = MaskJob::State::idle;
}

}  // namespace bise
