// FairQueue: whose turn it is. Tenants share the machine in two ways:
//
//   places   the tenant with the fewest running sequences is admitted next
//   prompts  are read by deficit round robin (Shreedhar and Varghese 1995) over their tokens: who has
//            the turn keeps it until its quantum is used up. One who was not there, or has not used
//            its share of late, is next at once: a short prompt does not wait for another's long one.
//
// Within a tenant places go to who came first. Its prompts are read in two lanes of equal share: one for
// the oldest, one for that with the least left to read. So a short prompt does not wait for the long ones
// of its own key (or of all, where there are no keys), and a long one keeps at least half of the speed it
// would have alone, however many short ones come. It owns the sequences that wait.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/sequence.h"

namespace bise {

class FairQueue {
 public:
  explicit FairQueue(int32_t quantum) : quantum_(quantum) {}

  // --- sequences that wait ---
  void push(std::unique_ptr<Sequence> sequence);
  // One that was admitted before: ahead of the others of its tenant.
  void push_front(std::unique_ptr<Sequence> sequence);
  // The one to be admitted next; nullptr when none is ready.
  Sequence* next(const std::function<bool(const Sequence&)>& is_ready) const;
  // Takes it out; nullptr when it does not wait here.
  std::unique_ptr<Sequence> take(SequenceId id);
  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }
  // All of them.
  void each(const std::function<void(Sequence&)>& call) const;

  // --- places ---
  void started(const Sequence& sequence);  // runs from now on
  void stopped(const Sequence& sequence);  // runs no more
  int32_t running(const std::string& tenant) const;

  // --- prompts ---
  // Who of `prompts` (that are being read, oldest first, at least one) gets the next chunk.
  struct Turn {
    size_t index = 0;
    // It goes before an older one of its tenant, by the lane of the short; or it is the oldest, and
    // another would have gone by that lane. Neither: there was no choice.
    bool is_passing = false, is_passed_over = false;
  };
  Turn turn(const std::vector<Sequence*>& prompts);
  // The chunk it got, in tokens.
  void charge(const Turn& turn, const Sequence& sequence, int32_t tokens);

  // CHECKs the counts against what really runs, by tenant.
  void check(const std::map<std::string, int32_t>& running) const;

 private:
  struct Tenant {
    std::string name;
    std::deque<std::unique_ptr<Sequence>> waiting;
    int32_t running = 0;
    int64_t deficit = 0;         // tokens it may still have read in its turn; below 0: too many
    int64_t passed = 0;          // tokens that its short prompts were read ahead of its oldest, at most a quantum
    uint64_t last_admitted = 0;  // of those with equal places the one longest ago is next
  };
  Tenant& holder(const std::vector<Sequence*>& prompts);
  Tenant* find(const std::string& name) const;
  Tenant& enter(const std::string& name);
  void leave(const std::string& name);

  const int32_t quantum_;
  // In the order of turns. A tenant with nothing to do stays until its deficit is a whole quantum
  // again: it would come back as it goes.
  std::vector<std::unique_ptr<Tenant>> tenants_;
  size_t holder_ = 0;  // index of the one whose turn it is
  size_t size_ = 0;
  uint64_t admissions_ = 0;
};

}  // namespace bise
