// Products of panels on AMX. Included by isa_amx.cpp behind panel.inl, over simd_amx.h. Four tiles hold sums: a step loads two runs of x and two tiles of weights for four
// multiplications, which take as long as the loads at 64 bytes a cycle.

// Sums in tile registers 0 to 3: run 0 with tiles 0 and 1, run 1 with tiles 0 and 1.
template <int kRuns, int kTiles>
inline void multiply_block(const PanelProduct& p, int64_t run, int64_t tile) {
  const uint16_t* x0 = p.x + run * p.x_stride;
  const uint16_t* x1 = x0 + (kRuns - 1) * p.x_stride;
  const uint16_t* w0 = p.weights + tile * p.weights_stride;
  const uint16_t* w1 = w0 + (kTiles - 1) * p.weights_stride;
  float* sums = p.sums + tile * p.sums_stride + run * kTileSums;
  if (p.add) {
    _tile_loadd(0, sums, 64);
    if constexpr (kTiles == 2) _tile_loadd(1, sums + p.sums_stride, 64);
    if constexpr (kRuns == 2) _tile_loadd(2, sums + kTileSums, 64);
    if constexpr (kRuns == 2 && kTiles == 2) _tile_loadd(3, sums + p.sums_stride + kTileSums, 64);
  } else {
    _tile_zero(0);
    if constexpr (kTiles == 2) _tile_zero(1);
    if constexpr (kRuns == 2) _tile_zero(2);
    if constexpr (kRuns == 2 && kTiles == 2) _tile_zero(3);
  }
  for (int64_t s = 0; s < p.steps; ++s) {
    if (p.weights_pass) {
      const int64_t skip = past_neighbours<kTiles>(s * kStepBytes, 2 * p.weights_stride);
      prefetch(reinterpret_cast<const uint8_t*>(w0 + s * kStepElements) + skip, kStepBytes);
      if constexpr (kTiles == 2) prefetch(reinterpret_cast<const uint8_t*>(w1 + s * kStepElements) + skip, kStepBytes);
    }
    _tile_loadd(4, x0 + s * kStepElements, 64);
    _tile_loadd(6, w0 + s * kStepElements, 64);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kTiles == 2) {
      _tile_loadd(7, w1 + s * kStepElements, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kRuns == 2) {
      _tile_loadd(5, x1 + s * kStepElements, 64);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (kTiles == 2) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, sums, 64);
  if constexpr (kTiles == 2) _tile_stored(1, sums + p.sums_stride, 64);
  if constexpr (kRuns == 2) _tile_stored(2, sums + kTileSums, 64);
  if constexpr (kRuns == 2 && kTiles == 2) _tile_stored(3, sums + p.sums_stride + kTileSums, 64);
}

template <int kTiles>
inline void multiply_tiles(const PanelProduct& p, int64_t tile) {
  const int64_t parts = (p.runs + 1) / 2;
  for (int64_t part = 0; part < parts; ++part) {
    if (p.ahead_bytes > 0) {
      for (int i = 0; i < kTiles; ++i) ask_ahead(p, tile + i, part, parts);
    }
    if (2 * part + 2 <= p.runs) multiply_block<2, kTiles>(p, 2 * part, tile);
    else multiply_block<1, kTiles>(p, 2 * part, tile);
  }
}

// Two tiles of weights stay in the nearest cache while the runs of x pass by.
inline void multiply(const PanelProduct& p) {
  TileScope scope;
  int64_t tile = 0;
  for (; tile + 2 <= p.tiles; tile += 2) multiply_tiles<2>(p, tile);
  if (tile < p.tiles) multiply_tiles<1>(p, tile);
}

// --- The limit: four products of the same tiles over and over.

struct PeakTiles {
  alignas(64) uint8_t x[1024], weights[1024];
  alignas(64) int32_t sums[256];
};
template <class Step>
inline void peak_of_tiles(PeakTiles& t, int64_t steps, Step step) {
  TileScope scope;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, t.x, 64);
  _tile_loadd(5, t.x, 64);
  _tile_loadd(6, t.weights, 64);
  _tile_loadd(7, t.weights, 64);
  for (int64_t i = 0; i < steps; ++i) step();
  _tile_stored(0, t.sums, 64);
}
inline double peak_bf16(int64_t steps, float* sink) {
  PeakTiles t = {};
  const F numbers = f_mul(f_load(sink), f_set1(0x1p-10f));
  for (int i = 0; i < 1024; i += 64) {
    f_store_pairs(reinterpret_cast<uint16_t*>(t.x + i), numbers, numbers);
    f_store_pairs(reinterpret_cast<uint16_t*>(t.weights + i), numbers, numbers);
  }
  peak_of_tiles(t, steps, [] {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  });
  memcpy(sink, t.sums, 64);
  return static_cast<double>(steps) * 4 * kTileSums * kStepColumns * 2;
}
inline double peak_matrix_int8(int64_t steps, float* sink) {
  PeakTiles t = {};
  for (int i = 0; i < 1024; ++i) t.x[i] = t.weights[i] = static_cast<uint8_t>(sink[i % 16]) & 15;
  peak_of_tiles(t, steps, [] {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
  });
  for (int i = 0; i < 16; ++i) sink[i] = static_cast<float>(t.sums[i]);
  return static_cast<double>(steps) * 4 * kTileSums * 2 * kStepColumns * 2;
}
