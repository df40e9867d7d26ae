// PrefixCache: which block of the KV cache holds what, so that a prompt that begins like another
// takes its blocks instead of computing them. Host book-keeping only.
//
// The cached blocks form a tree: a block is known by the block before it and by its own contents,
// which are kept and compared, so that a hit is exact whatever the hash does (only pictures are
// known by a digest, see image_digest.h). Only whole blocks are in it.
//
// A block that no sequence owns is idle and stands in a list in the order of its last use. Whoever
// owns a block owns those before it, and gives up the later ones first; so in the list a block always
// stands before the one it follows, and the head of the list is a leaf that was unused for longest.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

namespace bise {

// What one block holds.
struct BlockContents {
  std::span<const int32_t> tokens;   // all of a block
  std::span<const uint64_t> images;  // which rows of which pictures; see image_words()
  const std::string* salt = nullptr;  // of the sequence; counts in its first block
};

class PrefixCache {
 public:
  static constexpr int32_t kNone = -1;

  explicit PrefixCache(int32_t num_blocks);

  // The block with these contents that follows block `parent` (kNone: that begins a sequence); kNone
  // when there is none.
  int32_t find(int32_t parent, const BlockContents& contents) const;
  // From now on `block` is found under these. The parent must be in the cache.
  void insert(int32_t block, int32_t parent, const BlockContents& contents);
  bool contains(int32_t block) const { return node(block).is_cached; }
  bool is(int32_t block, int32_t parent, const BlockContents& contents) const;

  // A cached block lost its last owner, or got one.
  void set_idle(int32_t block);
  void set_used(int32_t block);
  int32_t num_cached() const { return static_cast<int32_t>(by_hash_.size()); }
  int32_t num_idle() const { return num_idle_; }
  // Forgets the idle block that was unused for longest, and returns it. There must be one.
  int32_t evict();

  // CHECKs the tree, the list and that exactly the cached blocks without owner (count 0) are idle.
  void check(std::span<const int32_t> reference_counts) const;

 private:
  struct Node {
    bool is_cached = false, is_idle = false;
    int32_t parent = kNone;
    int32_t children = 0;
    int32_t previous = kNone, next = kNone;  // in the list of idle blocks
    uint64_t serial = 0;                     // never the same for two contents
    uint64_t hash = 0;
    std::vector<int32_t> tokens;
    std::vector<uint64_t> images;
    std::string salt;  // of a first block
  };

  Node& node(int32_t block) { return nodes_[static_cast<size_t>(block)]; }
  const Node& node(int32_t block) const { return nodes_[static_cast<size_t>(block)]; }
  uint64_t hash_of(int32_t parent, const BlockContents& contents) const;

  std::vector<Node> nodes_;  // by block
  std::unordered_multimap<uint64_t, int32_t> by_hash_;
  int32_t oldest_ = kNone, newest_ = kNone;  // ends of the list of idle blocks
  int32_t num_idle_ = 0;
  uint64_t last_serial_ = 0;
};

}  // namespace bise
