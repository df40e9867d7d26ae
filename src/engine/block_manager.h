// BlockManager: which block of the KV cache belongs to whom. Host book-keeping only; the memory is
// KvCache's, and only block numbers pass between them. Every block is one of
//
//   used     by one or more block tables (reference counts), cached at the same time or not
//   cached   by no table, but its contents may be asked for again (PrefixCache)
//   free     nothing
//
// Cached blocks are given away when nothing is free, the one that was unused for longest first.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "engine/prefix_cache.h"

namespace bise {

class BlockManager {
 public:
  explicit BlockManager(int32_t num_blocks);

  int32_t num_blocks() const { return static_cast<int32_t>(reference_counts_.size()); }
  int32_t num_free() const { return static_cast<int32_t>(free_.size()); }
  int32_t num_cached() const { return cache_.num_idle(); }
  int32_t num_used() const { return num_blocks() - num_free() - num_cached(); }
  // What grow() could hand out.
  int32_t num_available() const { return num_free() + num_cached(); }
  uint64_t num_evicted() const { return num_evicted_; }

  // Appends blocks to `block_table` until it has `count`; they belong to its owner alone. False,
  // and nothing changed, when there are not enough.
  [[nodiscard]] bool grow(std::vector<int32_t>& block_table, int32_t count);
  // The owner of this table gives it up. Empties the table.
  void release(std::vector<int32_t>& block_table);

  // The cached block with these contents after the last one of the table (or at the beginning);
  // PrefixCache::kNone when there is none. `is_idle`: whether taking it costs an available block.
  int32_t find_next(int32_t last_block, const BlockContents& contents, bool& is_idle) const;
  // Appends a cached block to the table, which becomes one of its owners.
  void take(std::vector<int32_t>& block_table, int32_t block);
  // Block `index` of the table is whole and holds these, those before it are in the cache: from now
  // on it is found. Where the cache already has such a block, the table gets that one for its own.
  void keep(std::vector<int32_t>& block_table, int32_t index, const BlockContents& contents);
  // Whether block `index` of the table is found under these contents.
  bool is_kept(const std::vector<int32_t>& block_table, int32_t index,
               const BlockContents& contents) const;

  // CHECKs that every block is free, cached or used and nothing else, that these are the whole, and
  // that the counts are those of `tables`: all live tables. Costs time in proportion to the number
  // of blocks.
  void check(std::span<const std::vector<int32_t>* const> tables) const;

 private:
  int32_t& count(int32_t block) { return reference_counts_[static_cast<size_t>(block)]; }
  void drop(int32_t block);

  std::vector<int32_t> free_;              // a stack: the block freed last is reused first
  std::vector<int32_t> reference_counts_;  // by block; 0: free or cached
  PrefixCache cache_;
  uint64_t num_evicted_ = 0;
};

}  // namespace bise
