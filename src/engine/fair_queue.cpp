#include "engine/fair_queue.h"

#include <algorithm>
#include <utility>

namespace bise {

FairQueue::Tenant* FairQueue::find(const std::string& name) const {
  for (const auto& tenant : tenants_) {
    if (tenant->name == name) return tenant.get();
  }
  return nullptr;
}

// The tenant of this name has something to do. A new one, or one with its whole quantum, gets the
// next turn; the holder goes on after it.
FairQueue::Tenant& FairQueue::enter(const std::string& name) {
  auto it = std::find_if(tenants_.begin(), tenants_.end(),
                         [&name](const auto& tenant) { return tenant->name == name; });
  if (it != tenants_.end()) {
    Tenant& tenant = **it;
    if (!tenant.waiting.empty() || tenant.running > 0 || tenant.deficit < quantum_) return tenant;
    leave(name);
  }
  auto tenant = std::make_unique<Tenant>();
  tenant->name = name;
  tenant->deficit = quantum_;
  holder_ = std::min(holder_, tenants_.size());
  return **tenants_.insert(tenants_.begin() + static_cast<ptrdiff_t>(holder_), std::move(tenant));
}

// Forgets a tenant that has nothing to do and nothing to pay.
void FairQueue::leave(const std::string& name) {
  auto it = std::find_if(tenants_.begin(), tenants_.end(),
                         [&name](const auto& tenant) { return tenant->name == name; });
  if (it == tenants_.end()) return;
  const Tenant& tenant = **it;
  if (!tenant.waiting.empty() || tenant.running > 0 || tenant.deficit < quantum_) return;
  if (static_cast<size_t>(it - tenants_.begin()) < holder_) --holder_;
  tenants_.erase(it);
}

// --- sequences that wait -----------------------------------------------------------------------------

void FairQueue::push(std::unique_ptr<Sequence> sequence) {
  enter(sequence->tenant).waiting.push_back(std::move(sequence));
  ++size_;
}

void FairQueue::push_front(std::unique_ptr<Sequence> sequence) {
  enter(sequence->tenant).waiting.push_front(std::move(sequence));
  ++size_;
}

Sequence* FairQueue::next(const std::function<bool(const Sequence&)>& is_ready) const {
  std::vector<Tenant*> order;
  for (const auto& tenant : tenants_) {
    if (!tenant->waiting.empty()) order.push_back(tenant.get());
  }
  std::sort(order.begin(), order.end(), [](const Tenant* a, const Tenant* b) {
    if (a->running != b->running) return a->running < b->running;
    return a->last_admitted < b->last_admitted;
  });
  for (Tenant* tenant : order) {
    for (const auto& sequence : tenant->waiting) {
      if (is_ready(*sequence)) return sequence.get();
    }
  }
  return nullptr;
}

std::unique_ptr<Sequence> FairQueue::take(SequenceId id) {
  for (const auto& tenant : tenants_) {
    auto& waiting = tenant->waiting;
    auto it = std::find_if(waiting.begin(), waiting.end(),
                           [id](const auto& sequence) { return sequence->id == id; });
    if (it == waiting.end()) continue;
    std::unique_ptr<Sequence> sequence = std::move(*it);
    waiting.erase(it);
    --size_;
    leave(sequence->tenant);
    return sequence;
  }
  return nullptr;
}

void FairQueue::each(const std::function<void(Sequence&)>& call) const {
  for (const auto& tenant : tenants_) {
    for (const auto& sequence : tenant->waiting) call(*sequence);
  }
}

// --- places -------------------------------------------------------------------------------------------

void FairQueue::started(const Sequence& sequence) {
  Tenant& tenant = enter(sequence.tenant);
  ++tenant.running;
  tenant.last_admitted = ++admissions_;
}

void FairQueue::stopped(const Sequence& sequence) {
  Tenant* tenant = find(sequence.tenant);
  CHECK(tenant != nullptr && tenant->running > 0);
  --tenant->running;
  leave(sequence.tenant);
}

int32_t FairQueue::running(const std::string& name) const {
  const Tenant* tenant = find(name);
  return tenant == nullptr ? 0 : tenant->running;
}

// --- prompts ------------------------------------------------------------------------------------------

// The tenant with a prompt among these that has the turn.
FairQueue::Tenant& FairQueue::holder(const std::vector<Sequence*>& prompts) {
  CHECK(!prompts.empty());
  auto is_candidate = [&prompts](const Tenant& tenant) {
    return std::any_of(prompts.begin(), prompts.end(),
                       [&tenant](const Sequence* s) { return s->tenant == tenant.name; });
  };
  for (;;) {
    for (size_t i = 0; i < tenants_.size(); ++i) {
      const size_t index = (holder_ + i) % tenants_.size();
      Tenant& tenant = *tenants_[index];
      if (tenant.deficit <= 0 || !is_candidate(tenant)) continue;
      holder_ = index;
      return tenant;
    }
    // All have used theirs up: a new round. Nobody saves more than one quantum.
    bool is_known = false;
    for (const auto& tenant : tenants_) {
      tenant->deficit = std::min<int64_t>(quantum_, tenant->deficit + quantum_);
      is_known |= is_candidate(*tenant);
    }
    CHECK(is_known);
    ++holder_;  // the one who had the turn comes last
    std::vector<std::string> gone;
    for (const auto& tenant : tenants_) gone.push_back(tenant->name);
    for (const std::string& name : gone) leave(name);
    holder_ = tenants_.empty() ? 0 : holder_ % tenants_.size();
  }
}

FairQueue::Turn FairQueue::turn(const std::vector<Sequence*>& prompts) {
  const Tenant& tenant = holder(prompts);
  size_t oldest = prompts.size(), shortest = prompts.size();
  for (size_t i = 0; i < prompts.size(); ++i) {
    if (prompts[i]->tenant != tenant.name) continue;
    if (oldest == prompts.size()) oldest = i;
    if (shortest == prompts.size() || prompts[i]->remaining() < prompts[shortest]->remaining()) shortest = i;
  }
  if (shortest == oldest) return {oldest, false, false};
  if (tenant.passed > 0) return {oldest, false, true};
  return {shortest, true, false};
}

void FairQueue::charge(const Turn& turn, const Sequence& sequence, int32_t tokens) {
  Tenant* tenant = find(sequence.tenant);
  CHECK(tenant != nullptr);
  tenant->deficit -= tokens;
  if (turn.is_passing) tenant->passed = std::min<int64_t>(tenant->passed + tokens, quantum_);
  if (turn.is_passed_over) tenant->passed = std::max<int64_t>(tenant->passed - tokens, -quantum_);
}

void FairQueue::check(const std::map<std::string, int32_t>& running) const {
  size_t waiting = 0, running_tenants = 0;
  for (const auto& tenant : tenants_) {
    waiting += tenant->waiting.size();
    for (const auto& sequence : tenant->waiting) CHECK(sequence->tenant == tenant->name);
    auto it = running.find(tenant->name);
    CHECK(tenant->running == (it == running.end() ? 0 : it->second));
    running_tenants += tenant->running > 0 ? 1 : 0;
    CHECK(tenant->deficit <= quantum_);
  }
  CHECK(running_tenants == running.size());
  CHECK(waiting == size_);
}

}  // namespace bise
