#include "base/thread_pool.h"

#include "base/error.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace bise {
namespace {

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}
constexpr int kSpins = 4000;  // about 50 µs: longer than the serial part between two ops of a step

// Threads shared out by the processors of the nodes.
std::vector<ThreadPool::Group> grouped(int num_threads, std::span<const MemoryNode> nodes) {
  int64_t processors = 0, before = 0;
  for (const MemoryNode& node : nodes) processors += std::ssize(node.cpus);
  std::vector<ThreadPool::Group> groups;
  for (const MemoryNode& node : nodes) {
    const auto first = static_cast<int>(num_threads * before / processors);
    before += std::ssize(node.cpus);
    const auto end = static_cast<int>(num_threads * before / processors);
    if (end > first) groups.push_back({node, first, end - first});
  }
  if (groups.size() < 2) return {{{}, 0, num_threads}};
  return groups;
}

}  // namespace

struct ThreadPool::State {
  // The part of a loop that a group begins with.
  struct alignas(64) Part {
    std::atomic<int64_t> next{0};  // passes `end` by at most one grain per thread
    int64_t end = 0;
  };
  std::vector<Group> groups;
  std::vector<Part> parts;  // one for each group
  std::vector<size_t> group_of;  // a worker
  std::vector<std::thread> threads;
  std::mutex sleep_mutex;
  std::condition_variable wake;
  std::atomic<uint64_t> round{0};  // raised once per loop; workers wait for a change
  // The round whose loop may be joined, 0 when none. A worker counts itself in `joined` before it
  // looks, and the caller closes before it looks at `joined`: so either the worker finds the loop
  // closed, or the caller waits for it. A worker that the system has not run meanwhile keeps nobody
  // waiting.
  std::atomic<uint64_t> open{0};
  std::atomic<int> joined{0};
  std::atomic<int> sleepers{0};
  std::atomic<bool> stop{false};
  // The loop: written while nobody has joined, read by those who have.
  std::atomic<bool> busy{false};  // catches a loop within a loop, and two owners
  int64_t grain = 1;
  Call call = nullptr;
  void* context = nullptr;

  void drain(int worker) {
    const size_t own = group_of[static_cast<size_t>(worker)];
    for (size_t i = 0; i < parts.size(); ++i) {
      Part& part = parts[(own + i) % parts.size()];
      for (;;) {
        const int64_t begin = part.next.fetch_add(grain, std::memory_order_relaxed);
        if (begin >= part.end) break;
        call(context, begin, begin + std::min(grain, part.end - begin), worker);
      }
    }
  }
  void work(int worker) {
    uint64_t seen = 0;
    for (;;) {
      int spins = 0;
      while (round.load(std::memory_order_acquire) == seen) {
        if (++spins < kSpins) {
          relax();
          continue;
        }
        std::unique_lock lock(sleep_mutex);
        sleepers.fetch_add(1);
        // Sequentially consistent against raise(): either it sees this sleeper or this sees its round.
        wake.wait(lock, [&] { return round.load() != seen; });
        sleepers.fetch_sub(1);
      }
      seen = round.load();
      if (stop.load()) return;
      joined.fetch_add(1);
      if (open.load() == seen) drain(worker);
      joined.fetch_sub(1, std::memory_order_release);
    }
  }
  void raise() {
    open.store(round.load(std::memory_order_relaxed) + 1);
    round.fetch_add(1);
    if (sleepers.load() > 0) {
      std::lock_guard lock(sleep_mutex);
      wake.notify_all();
    }
  }
};

ThreadPool::ThreadPool(int num_threads, std::span<const MemoryNode> nodes)
    : num_threads_(std::max(num_threads, 1)), state_(std::make_unique<State>()) {
  State& s = *state_;
  s.groups = grouped(num_threads_, nodes);
  s.parts = std::vector<State::Part>(s.groups.size());
  s.group_of.resize(static_cast<size_t>(num_threads_));
  for (size_t g = 0; g < s.groups.size(); ++g) {
    const Group& group = s.groups[g];
    std::fill_n(s.group_of.begin() + group.first_worker, group.num_workers, g);
  }
  const bool binds = s.groups.size() > 1;
  for (int i = 1; i < num_threads_; ++i) {
    try {
      s.threads.emplace_back([state = state_.get(), i, binds] {
        if (binds) run_on(state->groups[state->group_of[static_cast<size_t>(i)]].node.cpus);  // refused: it runs anywhere
        state->work(i);
      });
    } catch (const std::exception&) {  // the system gives no more threads: work with those we have
      num_threads_ = i;
    }
  }
}

std::span<const ThreadPool::Group> ThreadPool::groups() const { return state_->groups; }

int64_t ThreadPool::part_end(size_t group, int64_t count, int64_t grain) const {
  const Group& g = state_->groups[group];
  if (group + 1 == state_->groups.size()) return count;
  const int64_t pieces = (count + grain - 1) / grain;
  return std::min(count, pieces * g.end_worker() / state_->groups.back().end_worker() * grain);
}

ThreadPool::~ThreadPool() {
  state_->stop = true;
  {
    std::lock_guard lock(state_->sleep_mutex);
    state_->round.fetch_add(1);
    state_->wake.notify_all();
  }
  for (std::thread& thread : state_->threads) thread.join();
}

void ThreadPool::run(int64_t count, int64_t grain, Call call, void* context) {
  grain = std::max<int64_t>(grain, 1);
  if (count <= 0) return;
  State& s = *state_;
  CHECK(!s.busy.exchange(true, std::memory_order_acquire));
  if (num_threads_ == 1 || count <= grain) {
    // The same pieces as with many threads, so that a result cannot depend on their number.
    for (int64_t begin = 0; begin < count;) {
      int64_t end = begin + std::min(grain, count - begin);
      call(context, begin, end, 0);
      begin = end;
    }
    s.busy.store(false, std::memory_order_release);
    return;
  }
  int64_t begin = 0;
  for (size_t g = 0; g < s.parts.size(); ++g) {
    s.parts[g].next.store(begin, std::memory_order_relaxed);
    s.parts[g].end = begin = part_end(g, count, grain);
  }
  s.grain = grain;
  s.call = call;
  s.context = context;
  s.raise();
  s.drain(0);
  s.open.store(0);
  for (int spins = 0; s.joined.load() != 0;) {
    if (++spins < kSpins) relax();
    else std::this_thread::yield();
  }
  s.busy.store(false, std::memory_order_release);
}

int usable_cores() {
  int cores = static_cast<int>(std::thread::hardware_concurrency());
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) cores = CPU_COUNT(&set);
  // cgroup v2 quota: "max 100000" or "200000 100000".
  if (std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "re")) {
    long long quota = 0, period = 0;
    if (std::fscanf(file, "%lld %lld", &quota, &period) == 2 && quota > 0 && period > 0) {
      cores = std::min(cores, static_cast<int>((quota + period - 1) / period));
    }
    std::fclose(file);
  }
  return std::max(cores, 1);
}

}  // namespace bise
