#include "engine/prefix_cache.h"

#include <algorithm>

#include "base/error.h"
#include "base/random.h"

namespace bise {

PrefixCache::PrefixCache(int32_t num_blocks) : nodes_(static_cast<size_t>(num_blocks)) {}

// One word is mixed in at a time. Collisions cost a comparison and no more.
uint64_t PrefixCache::hash_of(int32_t parent, const BlockContents& contents) const {
  uint64_t hash = parent == kNone ? 0 : node(parent).serial;
  auto add = [&hash](uint64_t word) { hash = (hash ^ mix64(word)) * 0x9E3779B97F4A7C15u; };
  for (int32_t token : contents.tokens) add(static_cast<uint64_t>(token));
  for (uint64_t word : contents.images) add(word);
  if (parent == kNone) {
    for (char c : *contents.salt) add(static_cast<uint64_t>(static_cast<unsigned char>(c)));
  }
  return mix64(hash);
}

bool PrefixCache::is(int32_t block, int32_t parent, const BlockContents& contents) const {
  const Node& n = node(block);
  return n.is_cached && n.parent == parent && std::ranges::equal(n.tokens, contents.tokens) &&
         std::ranges::equal(n.images, contents.images) &&
         (parent != kNone || n.salt == *contents.salt);
}

int32_t PrefixCache::find(int32_t parent, const BlockContents& contents) const {
  auto [begin, end] = by_hash_.equal_range(hash_of(parent, contents));
  for (auto it = begin; it != end; ++it) {
    if (is(it->second, parent, contents)) return it->second;
  }
  return kNone;
}

void PrefixCache::insert(int32_t block, int32_t parent, const BlockContents& contents) {
  Node& n = node(block);
  CHECK(!n.is_cached && (parent == kNone || node(parent).is_cached));
  n.is_cached = true;
  n.parent = parent;
  n.hash = hash_of(parent, contents);
  n.serial = ++last_serial_;
  n.tokens.assign(contents.tokens.begin(), contents.tokens.end());
  n.images.assign(contents.images.begin(), contents.images.end());
  if (parent == kNone) n.salt = *contents.salt;
  else ++node(parent).children;
  by_hash_.emplace(n.hash, block);
}

void PrefixCache::set_idle(int32_t block) {
  Node& n = node(block);
  CHECK(n.is_cached && !n.is_idle);
  n.is_idle = true;
  n.previous = newest_;
  n.next = kNone;
  (newest_ == kNone ? oldest_ : node(newest_).next) = block;
  newest_ = block;
  ++num_idle_;
}

void PrefixCache::set_used(int32_t block) {
  Node& n = node(block);
  CHECK(n.is_idle);
  n.is_idle = false;
  (n.previous == kNone ? oldest_ : node(n.previous).next) = n.next;
  (n.next == kNone ? newest_ : node(n.next).previous) = n.previous;
  --num_idle_;
}

int32_t PrefixCache::evict() {
  const int32_t block = oldest_;
  CHECK(block != kNone);
  set_used(block);
  Node& n = node(block);
  CHECK(n.children == 0);
  if (n.parent != kNone) --node(n.parent).children;
  auto [begin, end] = by_hash_.equal_range(n.hash);
  by_hash_.erase(std::find_if(begin, end, [block](const auto& e) { return e.second == block; }));
  n.is_cached = false;
  n.tokens.clear();
  n.images.clear();
  n.salt.clear();
  return block;
}

void PrefixCache::check(std::span<const int32_t> reference_counts) const {
  CHECK(reference_counts.size() == nodes_.size());
  std::vector<int32_t> children(nodes_.size(), 0);
  size_t cached = 0;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const Node& n = nodes_[i];
    CHECK(n.is_idle == (n.is_cached && reference_counts[i] == 0));
    if (!n.is_cached) continue;
    ++cached;
    auto [begin, end] = by_hash_.equal_range(n.hash);
    CHECK(std::count_if(begin, end, [i](const auto& e) {
            return e.second == static_cast<int32_t>(i);
          }) == 1);
    if (n.parent == kNone) continue;
    CHECK(node(n.parent).is_cached);
    CHECK(n.is_idle || !node(n.parent).is_idle);
    ++children[static_cast<size_t>(n.parent)];
  }
  CHECK(cached == by_hash_.size());
  for (size_t i = 0; i < nodes_.size(); ++i) CHECK(nodes_[i].children == children[i]);

  // From the head, no block stands behind the one it follows.
  std::vector<bool> seen(nodes_.size(), false);
  int32_t idle = 0, before = kNone;
  for (int32_t block = oldest_; block != kNone; block = node(block).next) {
    const Node& n = node(block);
    CHECK(n.is_idle && n.previous == before);
    CHECK(n.parent == kNone || !seen[static_cast<size_t>(n.parent)]);
    CHECK(++idle <= num_idle_);
    seen[static_cast<size_t>(block)] = true;
    before = block;
  }
  CHECK(before == newest_ && idle == num_idle_);
}

}  // namespace bise
