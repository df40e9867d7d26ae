// Products of tiles of keys or values with queries, as attention in 8 and in 16 bits has them. Included by isa_avx512_bf16.cpp and
// isa_amx.cpp behind attention.inl.
//
// A product of 64 bytes wants the four of a query in all lanes, which is a load, and this core does two products a cycle and no more
// loads: so two tiles are multiplied at once. Their sums fill the registers. In a loop GCC 12 copies all sums from round to
// round, has no registers for that, and waits for those that went to memory; so the steps are a straight line, in functions of
// their own, and sums pass through memory between these.

// The same pointer, of which the compiler knows nothing: so it adds to it where it is, and keeps no pointer for each query in memory.
template <class T>
inline T* opaque(T* p) {
  asm("" : "+r"(p));
  return p;
}

// prefetch_line in this place: the compiler collects the others at the head of a straight line, where they are more than memory
// takes at a time, and everything waits.
inline void prefetch_here(const uint8_t* p) { asm volatile("prefetcht1 %0" : : "m"(*p)); }

// in_query_groups for straight lines. Of more than six left over two halves are taken, but for eight, which are many models' heads to a
// key: not every count has functions of its own.
template <class Run>
inline void in_line_groups(int32_t num_queries, Run run) {
  constexpr int kAtOnce = 12, kMost = 6;
  int32_t q = 0;
  for (; q + kAtOnce <= num_queries; q += kAtOnce) run.template operator()<kAtOnce>(q);
  const int32_t rest = num_queries - q, half = rest / 2;
  if (rest == 8) {
    run.template operator()<8>(q);
  } else if (rest > kMost) {
    rest_of_queries<kMost>(q, half, run);
    rest_of_queries<kMost>(q + half, rest - half, run);
  } else if (rest > 0) {
    rest_of_queries<kMost>(q, rest, run);
  }
}

// Steps of a straight line over the columns of a head, as many as have room in the caches of the core's instructions, and the columns
// of a short one, of which every head is a multiple.
constexpr int32_t kLineSteps = 16, kShortLineColumns = 16;

// Calls line<kSteps>(column) for all columns of a head; a step takes kColumns.
template <int32_t kColumns, class Line>
inline void in_lines(int32_t padded, Line line) {
  int32_t column = 0;
  for (; column + kLineSteps * kColumns <= padded; column += kLineSteps * kColumns) line.template operator()<kLineSteps>(column);
  for (; column < padded; column += kShortLineColumns) line.template operator()<kShortLineColumns / kColumns>(column);
}

// The sums of kTiles tiles and kQueries queries begin at start(tile, query), take kSteps steps, and end at finish(tile, query, sum). Of a
// step load(tile, step) gives the 64 bytes of a tile, and multiply(sum, tile, x) takes four bytes of a query; rows of x are `stride` bytes apart.
// Meanwhile as much is asked for from `ahead` on: from end to end, as memory likes it, not in turns from two tiles.
template <class Sum, int kTiles, int kQueries, int kSteps, class Start, class Load, class Multiply, class Finish>
[[gnu::always_inline]] inline void multiply_tiles(const void* x, int64_t stride, const uint8_t* ahead, Start start, Load load, Multiply multiply,
                                                  Finish finish) {
  Sum sums[kTiles][kQueries];
#pragma GCC unroll 32
  for (int i = 0; i < kQueries; ++i) {
    for (int j = 0; j < kTiles; ++j) sums[j][i] = start(j, i);
  }
#pragma GCC unroll 32
  for (int step = 0; step < kSteps; ++step) {
    decltype(load(0, 0)) tiles[kTiles];
    for (int j = 0; j < kTiles; ++j) {
      tiles[j] = load(j, step);
      prefetch_here(ahead + (step * kTiles + j) * 64);
    }
    const uint8_t* four = opaque(static_cast<const uint8_t*>(x) + 4 * step);
    for (int i = 0; i < kQueries; ++i) {
      for (int j = 0; j < kTiles; ++j) sums[j][i] = multiply(sums[j][i], tiles[j], four + i * stride);
    }
  }
#pragma GCC unroll 32
  for (int i = 0; i < kQueries; ++i) {
    for (int j = 0; j < kTiles; ++j) finish(j, i, sums[j][i]);
  }
}

// run<kQueries, kTiles>(first query, first element of the head) for all queries and tiles of the values.
template <class Run>
inline void each_value_tile(const AttendBlock& a, Run run) {
  const int32_t padded = kv_padded(a.head_dim);
  in_line_groups(a.num_queries, [&]<int kQueries>(int32_t q) {
    int32_t at = 0;
    for (; at + 2 * kKvLanes <= padded; at += 2 * kKvLanes) run.template operator()<kQueries, 2>(q, at);
    if (at < padded) run.template operator()<kQueries, 1>(q, at);
  });
}

// out := out * correction.
inline void correct_sums(const AttendBlock& a) {
  const int32_t padded = kv_padded(a.head_dim);
  for (int32_t q = 0; q < a.num_queries; ++q) {
    const F correction = f_set1(a.corrections[q]);
    float* out = a.out + q * padded;
    for (int32_t d = 0; d < padded; d += kKvLanes) f_store(out + d, f_mul(f_load(out + d), correction));
  }
}
