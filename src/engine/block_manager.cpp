#include "engine/block_manager.h"

namespace bise {
namespace {

int32_t parent_of(const std::vector<int32_t>& block_table, int32_t index) {
  return index == 0 ? PrefixCache::kNone : block_table[static_cast<size_t>(index) - 1];
}

}  // namespace

BlockManager::BlockManager(int32_t num_blocks)
    : reference_counts_(static_cast<size_t>(num_blocks), 0), cache_(num_blocks) {
  free_.reserve(static_cast<size_t>(num_blocks));
  for (int32_t block = num_blocks - 1; block >= 0; --block) free_.push_back(block);
}

bool BlockManager::grow(std::vector<int32_t>& block_table, int32_t wanted) {
  size_t size = static_cast<size_t>(wanted);
  if (size <= block_table.size()) return true;
  if (size - block_table.size() > static_cast<size_t>(num_available())) return false;
  while (block_table.size() < size) {
    if (free_.empty()) {
      free_.push_back(cache_.evict());
      ++num_evicted_;
    }
    int32_t block = free_.back();
    free_.pop_back();
    CHECK(count(block) == 0);
    count(block) = 1;
    block_table.push_back(block);
  }
  return true;
}

void BlockManager::drop(int32_t block) {
  CHECK(count(block) > 0);
  if (--count(block) > 0) return;
  if (cache_.contains(block)) cache_.set_idle(block);
  else free_.push_back(block);
}

// Later blocks first: see the order of the list of idle blocks.
void BlockManager::release(std::vector<int32_t>& block_table) {
  while (!block_table.empty()) {
    drop(block_table.back());
    block_table.pop_back();
  }
}

int32_t BlockManager::find_next(int32_t last_block, const BlockContents& contents,
                                bool& is_idle) const {
  int32_t block = cache_.find(last_block, contents);
  is_idle = block != PrefixCache::kNone && reference_counts_[static_cast<size_t>(block)] == 0;
  return block;
}

void BlockManager::take(std::vector<int32_t>& block_table, int32_t block) {
  CHECK(cache_.contains(block));
  if (count(block)++ == 0) cache_.set_used(block);
  block_table.push_back(block);
}

void BlockManager::keep(std::vector<int32_t>& block_table, int32_t index,
                        const BlockContents& contents) {
  const int32_t parent = parent_of(block_table, index);
  int32_t& block = block_table[static_cast<size_t>(index)];
  if (int32_t same = cache_.find(parent, contents); same != PrefixCache::kNone) {
    if (count(same)++ == 0) cache_.set_used(same);
    drop(block);
    block = same;
    return;
  }
  cache_.insert(block, parent, contents);
}

bool BlockManager::is_kept(const std::vector<int32_t>& block_table, int32_t index,
                           const BlockContents& contents) const {
  return cache_.is(block_table[static_cast<size_t>(index)], parent_of(block_table, index),
                   contents);
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
  int32_t used = 0;
  for (int32_t n : counts) used += n > 0 ? 1 : 0;
  CHECK(used + num_cached() + num_free() == num_blocks());
  for (int32_t block : free_) {
    CHECK(!cache_.contains(block));
    int32_t& n = counts[static_cast<size_t>(block)];
    CHECK(n == 0);  // free, and not twice in the list
    n = -1;
  }
  cache_.check(reference_counts_);
}

}  // namespace bise
