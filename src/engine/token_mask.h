// TokenMask: which tokens may come next in one sequence, for output that must have a structure. The
// engine knows only this interface; what the structure is (a schema, a grammar) and when it starts
// is the business of the floor above.
//
// The engine calls it in turns, never two at a time, from two threads with an order between them:
//
//   fill     before each draw, on a thread of its own while the model computes
//   accept   after the draw, on the engine's thread; then is_finished
//
// A sequence that is preempted keeps its mask: tokens are accepted once, whatever is recomputed.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "base/error.h"

namespace bise {

class TokenMask {
 public:
  virtual ~TokenMask() = default;

  // Bit i % 32 of word i / 32 says whether token i may come next; the words are 0 on entry, and
  // there are ceil(vocab_size / 32). Value: false when any token may come, and the words are not
  // looked at. An Error ends the sequence with it.
  virtual Result<bool> fill(std::span<uint32_t> bitmask) = 0;
  // The token that was drawn; not called for a stop token that ends the sequence. An Error ends the
  // sequence with it.
  virtual Result<void> accept(int32_t token) = 0;
  // Whether nothing may follow: the sequence then ends with `stop`.
  virtual bool is_finished() const = 0;
};

// Makes the mask of one sequence, in its first state; called once for each sequence of a group, on
// the thread that submits. Empty: no mask.
using TokenMaskFactory = std::function<Result<std::unique_ptr<TokenMask>>()>;

}  // namespace bise
