#include "engine/engine_thread.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

namespace bise {
namespace {

// What an event counts for against the capacity of its channel.
size_t weight_of(const SequenceEvent& event) {
  return (event.token ? 1 : 0) + event.prompt_logprobs.size();
}

}  // namespace

// --- channel and inbox: what a reader shares with the engine's thread --------------------------------

struct TokenStream::Channel {
  std::vector<SequenceId> ids;
  std::function<void()> on_ready;

  std::mutex events_lock;
  std::condition_variable arrived;
  std::vector<SequenceEvent> events;
  size_t weight = 0;   // of `events`
  size_t taken = 0;    // sequences whose last event was taken
  bool paused = false;  // by the engine's thread, for want of room
};

struct TokenStream::Inbox {
  struct Submission {
    PreparedGroup group;
    std::shared_ptr<Channel> channel;
  };

  std::mutex inbox_lock;
  std::condition_variable changed;  // of all below; both sides wait for it
  std::vector<Submission> submissions;
  std::vector<SequenceId> cancelled;
  std::vector<std::shared_ptr<Channel>> drained;  // were paused, have room again
  size_t waiting = 0;  // sequences that were taken in and have not been in a step, and submissions
  std::map<std::string, size_t> waiting_of;  // the same by tenant
  size_t live = 0;                           // sequences whose last event is not published
  bool draining = false, stopping = false;
  EngineStats stats;
};

TokenStream::TokenStream(std::shared_ptr<Channel> channel, std::shared_ptr<Inbox> inbox)
    : channel_(std::move(channel)), inbox_(std::move(inbox)) {}
TokenStream::TokenStream(TokenStream&&) noexcept = default;
TokenStream& TokenStream::operator=(TokenStream&& other) noexcept {
  std::swap(channel_, other.channel_);
  std::swap(inbox_, other.inbox_);
  return *this;
}

TokenStream::~TokenStream() {
  if (!channel_ || is_done()) return;
  {
    std::lock_guard lock(channel_->events_lock);
    channel_->on_ready = {};  // nobody is there any more
  }
  std::lock_guard lock(inbox_->inbox_lock);
  inbox_->cancelled.insert(inbox_->cancelled.end(), channel_->ids.begin(), channel_->ids.end());
  inbox_->changed.notify_all();
}

const std::vector<SequenceId>& TokenStream::ids() const { return channel_->ids; }

bool TokenStream::is_done() const {
  std::lock_guard lock(channel_->events_lock);
  return channel_->taken == channel_->ids.size();
}

std::vector<SequenceEvent> TokenStream::poll() { return wait(std::chrono::milliseconds(0)); }

std::vector<SequenceEvent> TokenStream::wait(std::chrono::milliseconds timeout) {
  Channel& c = *channel_;
  std::unique_lock lock(c.events_lock);
  c.arrived.wait_for(lock, timeout,
                     [&c] { return !c.events.empty() || c.taken == c.ids.size(); });
  std::vector<SequenceEvent> events = std::exchange(c.events, {});
  for (const SequenceEvent& event : events) {
    if (event.finish != FinishReason::none) ++c.taken;
  }
  c.weight = 0;
  const bool has_room_again = std::exchange(c.paused, false);
  lock.unlock();
  if (has_room_again) {
    std::lock_guard inbox_lock(inbox_->inbox_lock);
    inbox_->drained.push_back(channel_);
    inbox_->changed.notify_all();
  }
  return events;
}

// --- the thread ---------------------------------------------------------------------------------------

struct EngineThread::State {
  using Channel = TokenStream::Channel;
  using Inbox = TokenStream::Inbox;

  std::unique_ptr<Engine> engine;
  EngineThreadOptions options;
  std::shared_ptr<Inbox> inbox = std::make_shared<Inbox>();
  std::map<SequenceId, std::shared_ptr<Channel>> channels;  // of live sequences; thread only
  std::map<SequenceId, std::string> waiting;  // id -> tenant, before the first step; thread only

  std::atomic<bool> has_work{false}, is_stopped{false};
  std::atomic<uint64_t> steps{0};
  std::atomic<int64_t> last_beat{0};  // EngineClock ticks

  std::mutex join_lock;
  std::thread thread;

  void beat() { last_beat = EngineClock::now().time_since_epoch().count(); }
  void run();
  void take_inbox();
  std::vector<SequenceEvent> step();
  void take_stats();
  // Returns whether somebody was paused.
  bool publish(std::vector<SequenceEvent> events);
  bool publish(const std::shared_ptr<Channel>& channel, std::vector<SequenceEvent> events);
  void leave_queue(const std::vector<SequenceEvent>& events);
};

// Submissions, cancels and resumptions, in this order; waits when there is nothing to do.
void EngineThread::State::take_inbox() {
  std::vector<Inbox::Submission> submissions;
  std::vector<SequenceId> cancelled;
  std::vector<std::shared_ptr<Channel>> drained;
  {
    Inbox& in = *inbox;
    std::unique_lock lock(in.inbox_lock);
    auto has_mail = [&in] {
      return in.stopping || !in.submissions.empty() || !in.cancelled.empty() ||
             !in.drained.empty();
    };
    if (engine->idle() && !has_mail()) {
      has_work = false;
      in.changed.wait(lock, has_mail);
      beat();
      has_work = true;
    }
    submissions = std::exchange(in.submissions, {});
    cancelled = std::exchange(in.cancelled, {});
    drained = std::exchange(in.drained, {});
    if (in.stopping) {
      for (const auto& [id, channel] : channels) cancelled.push_back(id);
    }
  }
  for (Inbox::Submission& submission : submissions) {
    for (const auto& sequence : submission.group.sequences) {
      channels[sequence->id] = submission.channel;
      waiting[sequence->id] = sequence->tenant;
    }
    const std::vector<SequenceId>& ids = submission.channel->ids;
    if (auto added = engine->add(std::move(submission.group)); !added) {
      std::vector<SequenceEvent> events;
      for (SequenceId id : ids) {
        SequenceEvent event;
        event.sequence = id;
        event.index = static_cast<int32_t>(id - ids[0]);
        event.finish = FinishReason::error;
        event.error = added.error();
        events.push_back(std::move(event));
      }
      publish(std::move(events));
    }
  }
  for (const std::shared_ptr<Channel>& channel : drained) {
    for (SequenceId id : channel->ids) engine->resume(id);
  }
  for (SequenceId id : cancelled) engine->cancel(id);
}

// What libraries throw ends the sequences and not the process.
std::vector<SequenceEvent> EngineThread::State::step() {
  std::string what = "memory ran out or a library failed in the middle of a step";
  try {
    return engine->step();
  } catch (const std::exception& e) {
    what += std::string(": ") + e.what();
  }
  engine->fail_all(Error(ErrorCode::internal, what));
  return {};
}

void EngineThread::State::run() {
  bool was_idle = false;
  for (;;) {
    take_inbox();
    std::vector<SequenceEvent> events = step();
    ++steps;
    beat();
    take_stats();
    if (publish(std::move(events))) take_stats();
    const bool is_idle = engine->idle();
    if (is_idle && !was_idle) engine->check();
    was_idle = is_idle;
    std::lock_guard lock(inbox->inbox_lock);
    if (inbox->stopping && inbox->submissions.empty() && channels.empty()) break;
  }
  has_work = false;
  is_stopped = true;
}

// Sequences that were in a step, or ended, wait no more.
void EngineThread::State::leave_queue(const std::vector<SequenceEvent>& events) {
  std::lock_guard lock(inbox->inbox_lock);
  for (const SequenceEvent& event : events) {
    if (event.finish != FinishReason::none) --inbox->live;
    auto it = waiting.find(event.sequence);
    if (it == waiting.end()) continue;
    --inbox->waiting;
    auto of_tenant = inbox->waiting_of.find(it->second);
    if (--of_tenant->second == 0) inbox->waiting_of.erase(of_tenant);
    waiting.erase(it);
  }
}

void EngineThread::State::take_stats() {
  EngineStats stats = engine->stats();
  std::lock_guard lock(inbox->inbox_lock);
  inbox->stats = stats;
}

bool EngineThread::State::publish(std::vector<SequenceEvent> events) {
  if (events.empty()) return false;
  leave_queue(events);
  std::map<std::shared_ptr<Channel>, std::vector<SequenceEvent>> by_channel;
  for (SequenceEvent& event : events) {
    auto it = channels.find(event.sequence);
    CHECK(it != channels.end());
    const bool is_last = event.finish != FinishReason::none;
    by_channel[it->second].push_back(std::move(event));
    if (is_last) channels.erase(it);
  }
  bool paused = false;
  for (auto& [channel, of_channel] : by_channel) paused |= publish(channel, std::move(of_channel));
  std::lock_guard lock(inbox->inbox_lock);
  if (inbox->live == 0) inbox->changed.notify_all();
  return paused;
}

bool EngineThread::State::publish(const std::shared_ptr<Channel>& channel,
                                  std::vector<SequenceEvent> events) {
  Channel& c = *channel;
  std::function<void()> on_ready;
  bool is_full = false;
  {
    std::lock_guard lock(c.events_lock);
    if (c.events.empty()) on_ready = c.on_ready;
    for (SequenceEvent& event : events) {
      c.weight += weight_of(event);
      c.events.push_back(std::move(event));
    }
    is_full = c.weight >= static_cast<size_t>(options.channel_capacity);
    if (is_full) c.paused = true;
    c.arrived.notify_all();
  }
  if (is_full) {
    for (SequenceId id : c.ids) engine->pause(id);
  }
  if (on_ready) on_ready();
  return is_full;
}

// --- the outside ------------------------------------------------------------------------------------

EngineThread::EngineThread(std::unique_ptr<Engine> engine, const EngineThreadOptions& options)
    : state_(std::make_unique<State>()) {
  state_->engine = std::move(engine);
  state_->options = options;
  state_->inbox->stats = state_->engine->stats();
  state_->beat();
  state_->thread = std::thread([s = state_.get()] { s->run(); });
}

EngineThread::~EngineThread() { stop(); }

Result<TokenStream> EngineThread::submit(NewSequence sequence, int32_t n,
                                         std::function<void()> on_ready) {
  TokenStream::Inbox& in = *state_->inbox;
  const EngineOptions& limits = state_->engine->options();
  const std::string tenant = sequence.tenant;
  auto refusal = [&]() -> Result<void> {  // with the lock
    if (in.draining || in.stopping) {
      return Error(ErrorCode::busy, "the server is being stopped and takes no more requests");
    }
    const size_t count = static_cast<size_t>(std::max(n, 1));
    auto it = in.waiting_of.find(tenant);
    size_t own = it == in.waiting_of.end() ? 0 : it->second;
    bool is_full = in.waiting + count > static_cast<size_t>(limits.max_waiting);
    if (is_full || (limits.max_waiting_per_tenant > 0 &&
                    own + count > static_cast<size_t>(limits.max_waiting_per_tenant))) {
      return Error(ErrorCode::busy,
                   "the queue is full: " + std::to_string(is_full ? in.waiting : own) +
                       " sequences wait" + (is_full ? "" : " for this key") +
                       ", and no more than " +
                       std::to_string(is_full ? limits.max_waiting
                                              : limits.max_waiting_per_tenant) +
                       " may: try again later");
    }
    return {};
  };
  {
    std::lock_guard lock(in.inbox_lock);  // before the checks that take time
    TRY(refusal());
  }
  PreparedGroup group = TRY(state_->engine->prepare(std::move(sequence), n));
  auto channel = std::make_shared<TokenStream::Channel>();
  for (const auto& one : group.sequences) channel->ids.push_back(one->id);
  channel->on_ready = std::move(on_ready);
  {
    std::lock_guard lock(in.inbox_lock);
    TRY(refusal());
    in.waiting += group.sequences.size();
    in.waiting_of[tenant] += group.sequences.size();
    in.live += group.sequences.size();
    in.submissions.push_back({std::move(group), channel});
    in.changed.notify_all();
  }
  return TokenStream(std::move(channel), state_->inbox);
}

void EngineThread::cancel(SequenceId id) {
  std::lock_guard lock(state_->inbox->inbox_lock);
  state_->inbox->cancelled.push_back(id);
  state_->inbox->changed.notify_all();
}

EngineStats EngineThread::stats() const {
  std::lock_guard lock(state_->inbox->inbox_lock);
  EngineStats stats = state_->inbox->stats;
  for (const auto& submission : state_->inbox->submissions) {
    stats.waiting += static_cast<int32_t>(submission.group.sequences.size());
  }
  return stats;
}

EngineHeartbeat EngineThread::heartbeat() const {
  EngineHeartbeat beat;
  beat.has_work = state_->has_work;
  beat.is_stopped = state_->is_stopped;
  beat.steps = state_->steps;
  if (beat.has_work) {
    EngineClock::duration since(EngineClock::now().time_since_epoch().count() -
                                state_->last_beat);
    beat.seconds = std::max(0.0, std::chrono::duration<double>(since).count());
  }
  return beat;
}

int64_t EngineThread::context() const { return state_->engine->context(); }
const EngineOptions& EngineThread::options() const { return state_->engine->options(); }

bool EngineThread::drain(std::chrono::milliseconds timeout) {
  TokenStream::Inbox& in = *state_->inbox;
  std::unique_lock lock(in.inbox_lock);
  in.draining = true;
  return in.changed.wait_for(lock, timeout, [&in] { return in.live == 0; });
}

void EngineThread::stop() {
  {
    std::lock_guard lock(state_->inbox->inbox_lock);
    state_->inbox->stopping = true;
    state_->inbox->changed.notify_all();
  }
  std::lock_guard lock(state_->join_lock);
  if (state_->thread.joinable()) state_->thread.join();
}

}  // namespace bise
