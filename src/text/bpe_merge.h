// The merge loop of byte-pair encoding, shared by both kinds of vocabulary: "always join the adjacent
// pair of lowest rank, leftmost first, until no pair can be joined". Used by this room only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <queue>
#include <vector>

namespace bise {

// What joining two neighbours gives. Lower ranks go first.
struct PairMerge {
  static constexpr uint32_t kNever = UINT32_MAX;
  uint32_t rank = kNever;
  int32_t id = 0;
};

// Up to here a plain scan for the lowest rank beats the heap.
constexpr size_t kShortPiece = 48;

// A piece beyond this is cut here, which bounds the memory (32 bytes per byte of the piece). No context
// is long enough to hold such a piece.
constexpr size_t kMaxPiece = size_t{1} << 26;

namespace bpe_detail {

struct Part {
  uint32_t begin;
  int32_t id;
  PairMerge merge;  // with the next part
};

// Quadratic, for short pieces only.
template <class Pair, class Emit>
void merge_short(const int32_t* symbols, uint32_t count, const Pair& pair, const Emit& emit) {
  Part parts[kShortPiece];
  uint32_t size = count;
  for (uint32_t i = 0; i < count; ++i) parts[i] = {i, symbols[i], {}};
  auto end_of = [&](uint32_t i) { return i + 1 < size ? parts[i + 1].begin : count; };
  auto renew = [&](uint32_t i) {
    parts[i].merge = i + 1 < size ? pair(parts[i].begin, end_of(i + 1), parts[i].id, parts[i + 1].id)
                                  : PairMerge{};
  };
  for (uint32_t i = 0; i < size; ++i) renew(i);
  while (true) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < size; ++i) {
      if (parts[i].merge.rank < parts[best].merge.rank) best = i;
    }
    if (parts[best].merge.rank == PairMerge::kNever) break;
    parts[best].id = parts[best].merge.id;
    std::copy(parts + best + 2, parts + size, parts + best + 1);
    --size;
    renew(best);
    if (best > 0) renew(best - 1);
  }
  for (uint32_t i = 0; i < size; ++i) emit(parts[i].id);
}

// A heap of (rank, begin), n log n: the order of work. Each part knows the merge with its successor; an
// entry that no longer agrees with it is stale.
template <class Pair, class Emit>
void merge_long(const int32_t* symbols, uint32_t count, const Pair& pair, const Emit& emit) {
  struct Node {
    uint32_t end;     // where the next part begins
    uint32_t prev;    // begin of the part before; of the first part: itself
    int32_t id;
    PairMerge merge;  // with the next part; kNever also where no part begins any more
  };
  std::vector<Node> nodes(count);
  for (uint32_t i = 0; i < count; ++i) nodes[i] = {i + 1, i == 0 ? 0 : i - 1, symbols[i], {}};
  // Looks at the pair that begins here anew; true when it can be joined.
  auto renew = [&](uint32_t begin) {
    Node& left = nodes[begin];
    if (left.end >= count) {
      left.merge = {};
      return false;
    }
    const Node& right = nodes[left.end];
    left.merge = pair(begin, right.end, left.id, right.id);
    return left.merge.rank != PairMerge::kNever;
  };
  auto key = [&](uint32_t begin) { return uint64_t{nodes[begin].merge.rank} << 32 | begin; };
  std::vector<uint64_t> first;
  first.reserve(count);
  for (uint32_t i = 0; i < count; ++i) {
    if (renew(i)) first.push_back(key(i));
  }
  std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<uint64_t>> heap(
      std::greater<uint64_t>{}, std::move(first));
  while (!heap.empty()) {
    uint64_t top = heap.top();
    heap.pop();
    uint32_t begin = static_cast<uint32_t>(top);
    Node& left = nodes[begin];
    if (left.merge.rank != top >> 32) continue;
    Node& right = nodes[left.end];
    left.id = left.merge.id;
    left.end = right.end;
    right.merge = {};
    if (left.end < count) nodes[left.end].prev = begin;
    if (renew(begin)) heap.push(key(begin));
    if (begin > 0 && renew(left.prev)) heap.push(key(left.prev));
  }
  for (uint32_t i = 0; i < count; i = nodes[i].end) emit(nodes[i].id);
}

}  // namespace bpe_detail

// pair(begin, end, left_id, right_id) -> PairMerge for neighbours that together span [begin, end) of
// the symbols; emit(id) for each part that is left. `count` must be at least 1.
template <class Pair, class Emit>
void merge_pairs(const int32_t* symbols, uint32_t count, const Pair& pair, const Emit& emit) {
  if (count <= kShortPiece) bpe_detail::merge_short(symbols, count, pair, emit);
  else bpe_detail::merge_long(symbols, count, pair, emit);
}

}  // namespace bise
