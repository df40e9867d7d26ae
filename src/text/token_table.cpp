#include "text/token_table.h"

#include <cstring>

#include "base/error.h"
#include "base/random.h"

namespace bise {
namespace {

uint64_t hash_bytes(std::string_view bytes, uint64_t seed) {
  constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15u;
  uint64_t hash = seed ^ (bytes.size() * kMultiplier);
  const char* p = bytes.data();
  size_t left = bytes.size();
  for (; left >= 8; p += 8, left -= 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    hash = (hash ^ word) * kMultiplier;
    hash ^= hash >> 32;
  }
  uint64_t word = 0;
  for (size_t i = 0; i < left; ++i) {
    word |= static_cast<uint64_t>(static_cast<uint8_t>(p[i])) << (8 * i);
  }
  hash = (hash ^ word) * kMultiplier;
  return mix64(hash);
}

}  // namespace

void TokenTable::reserve(size_t num_tokens, size_t num_bytes) {
  ends_.reserve(num_tokens);
  arena_.reserve(num_bytes);
}

void TokenTable::append(std::string_view bytes) {
  CHECK(slots_.empty());
  arena_.append(bytes);
  ends_.push_back(arena_.size());
}

int32_t TokenTable::build_index(int32_t first) {
  std::vector<bool> included(ends_.size(), true);
  for (int32_t i = 0; i < first && i < size(); ++i) included[static_cast<size_t>(i)] = false;
  return build_index(included);
}

int32_t TokenTable::build_index(const std::vector<bool>& included) {
  size_t num_slots = 16;
  while (num_slots < 2 * ends_.size()) num_slots *= 2;
  slots_.assign(num_slots, Slot{});
  // The seed hangs on the whole content, so that a file cannot simply list colliding tokens.
  seed_ = hash_bytes(arena_, 0);
  longest_ = 0;
  int32_t first_repeat = kNone;
  for (int32_t index = 0; index < size(); ++index) {
    std::string_view bytes = (*this)[index];
    if (!included[static_cast<size_t>(index)] || bytes.empty()) continue;
    uint64_t hash = hash_bytes(bytes, seed_);
    size_t at = hash & (num_slots - 1);
    bool repeat = false;
    while (slots_[at].index != kNone && !repeat) {
      repeat = slots_[at].hash == static_cast<uint32_t>(hash >> 32) &&
               (*this)[slots_[at].index] == bytes;
      at = (at + 1) & (num_slots - 1);
    }
    if (repeat) {
      if (first_repeat == kNone) first_repeat = index;
      continue;
    }
    slots_[at] = Slot{static_cast<uint32_t>(hash >> 32), index};
    longest_ = bytes.size() > longest_ ? bytes.size() : longest_;
  }
  return first_repeat;
}

int32_t TokenTable::find(std::string_view bytes) const {
  if (bytes.empty() || bytes.size() > longest_) return kNone;
  uint64_t hash = hash_bytes(bytes, seed_);
  size_t mask = slots_.size() - 1;
  for (size_t at = hash & mask; slots_[at].index != kNone; at = (at + 1) & mask) {
    if (slots_[at].hash == static_cast<uint32_t>(hash >> 32) && (*this)[slots_[at].index] == bytes) {
      return slots_[at].index;
    }
  }
  return kNone;
}

}  // namespace bise
