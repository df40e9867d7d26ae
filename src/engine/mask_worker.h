// MaskWorker: fills the token masks of sequences on a thread of its own, while the model computes
// the step whose logits they limit. Whoever needs a mask that nobody has begun fills it himself.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/error.h"
#include "engine/token_mask.h"

namespace bise {

// The mask of one sequence and the bits of its next draw. All but `mask` belongs to the worker.
struct MaskJob {
  MaskJob(std::unique_ptr<TokenMask> m, int32_t vocab_size);

  std::unique_ptr<TokenMask> mask;  // for accept and is_finished, between join and start
  enum class State : uint8_t { idle, queued, running, done };
  State state = State::idle;
  std::vector<uint32_t> bits;
  bool is_limited = false;  // else any token may come
  Result<void> result;
};

class MaskWorker {
 public:
  MaskWorker();
  ~MaskWorker();

  // Begins with the bits of the next draw; nothing when they are there or under way.
  void start(const std::shared_ptr<MaskJob>& job);
  // Waits for them. Empty: any token may come. Valid until the next start.
  Result<std::span<const uint32_t>> join(MaskJob& job);
  // The draw was made: the bits are of no use any more.
  void reset(MaskJob& job);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace bise
