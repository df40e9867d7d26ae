// EngineThread: one Engine on a thread of its own, for many callers. Between them stand two kinds of
// lock, each held for moments: that of the inbox, and that of each submission's channel.
//
// A channel is bounded. When its reader does not keep up, its sequences are paused (they give their
// place and blocks to others) until half of it was read; nothing is lost and nobody else waits.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "engine/engine.h"

namespace bise {

// The reader's end of one submission's events. One thread at a time. Destroying it cancels what
// still runs. It may outlive the EngineThread.
class TokenStream {
 public:
  TokenStream(TokenStream&&) noexcept;
  TokenStream& operator=(TokenStream&&) noexcept;
  ~TokenStream();

  // The ids of the sequences, by index in the group.
  const std::vector<SequenceId>& ids() const;
  // Takes all events there are, in order; empty when there are none, or once is_done().
  std::vector<SequenceEvent> poll();
  // The same; waits for one when there are none, but no longer than `timeout`.
  std::vector<SequenceEvent> wait(std::chrono::milliseconds timeout);
  // Whether the last event of every sequence was taken.
  bool is_done() const;

 private:
  friend class EngineThread;
  struct Channel;
  struct Inbox;
  TokenStream(std::shared_ptr<Channel> channel, std::shared_ptr<Inbox> inbox);
  std::shared_ptr<Channel> channel_;
  std::shared_ptr<Inbox> inbox_;
};

struct EngineThreadOptions {
  // Tokens and prompt log-probabilities a channel holds before its sequences are paused. What it
  // holds at most is more by what one step adds.
  int32_t channel_capacity = 256;
};

// For /health: an engine that has work and has not finished a step for long is not well.
struct EngineHeartbeat {
  bool has_work = false;
  bool is_stopped = false;
  uint64_t steps = 0;
  // Since the last step ended, or since there is work, whichever is later; 0 without work.
  double seconds = 0.0;
};

class EngineThread {
 public:
  // Owns the engine from now on and starts the thread.
  explicit EngineThread(std::unique_ptr<Engine> engine, const EngineThreadOptions& options = {});
  // stop()
  ~EngineThread();
  EngineThread(const EngineThread&) = delete;
  EngineThread& operator=(const EngineThread&) = delete;

  // All functions may be called from any thread.

  // Checks on the caller's thread (see Engine::prepare), then queues. `on_ready` is called on the
  // engine's thread when events are there after there were none; it must be quick (post to an
  // executor) and must not throw. Errors: those of Engine::submit, `busy` also while draining.
  Result<TokenStream> submit(NewSequence sequence, int32_t n = 1,
                             std::function<void()> on_ready = {});
  // Ends a sequence within one step. Unknown ids are ignored.
  void cancel(SequenceId id);
  // As of the last step.
  EngineStats stats() const;
  EngineHeartbeat heartbeat() const;
  // Read only: what never changes.
  int64_t context() const;
  const EngineOptions& options() const;

  // From now on submit() says `busy`. Waits until all sequences have ended, but no longer than
  // `timeout`; returns whether they have.
  bool drain(std::chrono::milliseconds timeout);
  // Ends what runs as `cancelled` and joins the thread. Once is enough.
  void stop();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace bise
