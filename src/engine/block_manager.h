// BlockManager: which block of the KV cache belongs to whom. Host book-keeping only; the memory is
// KvCache's, and only block numbers pass between them. A block may have several owners (reference
// counts), so that sequences can share the blocks of a common beginning.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"

namespace bise {

class BlockManager {
 public:
  explicit BlockManager(int32_t num_blocks);

  int32_t num_blocks() const { return static_cast<int32_t>(reference_counts_.size()); }
  int32_t num_free() const { return static_cast<int32_t>(free_.size()); }

  // Appends blocks to `block_table` until it has `count`; they belong to its owner alone. False,
  // and nothing changed, when there are not enough.
  [[nodiscard]] bool grow(std::vector<int32_t>& block_table, int32_t count);
  // One more owner for each of these blocks, which must be in use.
  void share(std::span<const int32_t> blocks);
  // The owner of this table gives it up; blocks without an owner become free. Empties the table.
  void release(std::vector<int32_t>& block_table);

  // CHECKs that every block is either free or counted, that free and used are the whole, and that
  // the counts are those of `tables`: all live tables. Costs time in proportion to the number of
  // blocks.
  void check(std::span<const std::vector<int32_t>* const> tables) const;

 private:
  std::vector<int32_t> free_;              // a stack: the block freed last is reused first
  std::vector<int32_t> reference_counts_;  // by block; 0: free
};

}  // namespace bise
