#include "engine/block_manager.h"

namespace bise {

BlockManager::BlockManager(int32_t num_blocks)
    : reference_counts_(static_cast<size_t>(num_blocks), 0) {
  free_.reserve(static_cast<size_t>(num_blocks));
  for (int32_t block = num_blocks - 1; block >= 0; --block) free_.push_back(block);
}

bool BlockManager::grow(std::vector<int32_t>& block_table, int32_t count) {
  size_t wanted = static_cast<size_t>(count);
  if (wanted <= block_table.size()) return true;
  if (wanted - block_table.size() > free_.size()) return false;
  while (block_table.size() < wanted) {
    int32_t block = free_.back();
    free_.pop_back();
    reference_counts_[static_cast<size_t>(block)] = 1;
    block_table.push_back(block);
  }
  return true;
}

void BlockManager::share(std::span<const int32_t> blocks) {
  for (int32_t block : blocks) {
    CHECK(reference_counts_[static_cast<size_t>(block)] > 0);
    ++reference_counts_[static_cast<size_t>(block)];
  }
}

void BlockManager::release(std::vector<int32_t>& block_table) {
  for (int32_t block : block_table) {
    int32_t& count = reference_counts_[static_cast<size_t>(block)];
    CHECK(count > 0);
    if (--count == 0) free_.push_back(block);
  }
  block_table.clear();
}

void BlockManager::check(std::span<const std::vector<int32_t>* const> tables) const {
  std::vector<int32_t> counts(reference_counts_.size(), 0);
  for (const std::vector<int32_t>* table : tables) {
    for (int32_t block : *table) {
      CHECK(block >= 0 && block < num_blocks());
      ++counts[static_cast<size_t>(block)];
    }
  }
  CHECK(counts == reference_counts_);
  size_t used = 0;
  for (int32_t count : counts) used += count > 0 ? 1 : 0;
  CHECK(used + free_.size() == counts.size());
  for (int32_t block : free_) {
    int32_t& count = counts[static_cast<size_t>(block)];
    CHECK(count == 0);  // free, and not twice in the list
    count = -1;
  }
}

}  // namespace bise
