// Products of panels by AVX512-BF16's dot product. Included by isa_avx512_bf16.cpp behind panel.inl.
//
// One instruction multiplies two columns of 16 rows with two numbers of x. Sums of 8 rows of x and 2 tiles stay in 16
// registers: more than hide its latency, and 10 loads for 16 products.

constexpr int kRowsAtOnce = 8;

template <int kRows, int kTiles>
inline void dot_block(const PanelProduct& p, int64_t tile, int64_t run, int row, bool ask) {
  constexpr int kPairs = kStepColumns / 2;
  const uint16_t* x = p.x + run * p.x_stride + row * kStepColumns;
  const uint16_t* w[kTiles];
  float* sums[kTiles];
  F sum[kTiles][kRows];
  for (int j = 0; j < kTiles; ++j) {
    w[j] = p.weights + (tile + j) * p.weights_stride;
    sums[j] = p.sums + (tile + j) * p.sums_stride + run * kTileSums + row * kTileRows;
    for (int i = 0; i < kRows; ++i) sum[j][i] = p.add ? f_load(sums[j] + i * kTileRows) : f_set1(0.0f);
  }
  for (int64_t s = 0; s < p.steps; ++s, x += kStepElements) {
    if (ask) {
      const int64_t skip = past_neighbours<kTiles>(s * kStepBytes, 2 * p.weights_stride);
      for (int j = 0; j < kTiles; ++j) {
        if (p.weights_pass) prefetch(reinterpret_cast<const uint8_t*>(w[j] + s * kStepElements) + skip, kStepBytes);
        else ask_ahead(p, tile + j, s, p.steps);
      }
    }
    for (int k = 0; k < kPairs; ++k) {
      for (int i = 0; i < kRows; ++i) {
        for (int j = 0; j < kTiles; ++j) {
          sum[j][i] = f_dot_bf16(sum[j][i], w[j] + s * kStepElements + k * 2 * kTileRows, x + i * kStepColumns + 2 * k);
        }
      }
    }
  }
  for (int j = 0; j < kTiles; ++j) {
    for (int i = 0; i < kRows; ++i) f_store(sums[j] + i * kTileRows, sum[j][i]);
  }
}

template <int kTiles>
inline void dot_tiles(const PanelProduct& p, int64_t tile) {
  bool ask = p.weights_pass || p.ahead_bytes > 0;  // once, between the first products
  for (int64_t run = 0; run < p.runs; ++run) {
    const int rows = run + 1 < p.runs ? kTileRows : p.last_rows;
    for (int row = 0; row < rows; row += kRowsAtOnce) {
      const auto take = [&]<int kIndex>() {
        constexpr int kRows = kIndex + 1;
        if (kRows == kRowsAtOnce ? rows - row >= kRows : rows - row == kRows)
          dot_block<kRows, kTiles>(p, tile, run, row, ask);
      };
      for_each_index<0, kRowsAtOnce>(take);
      ask = false;
    }
  }
}

// Two tiles of weights stay in the nearest cache while the runs of x pass by.
inline void multiply(const PanelProduct& p) {
  int64_t tile = 0;
  for (; tile + 2 <= p.tiles; tile += 2) dot_tiles<2>(p, tile);
  if (tile < p.tiles) dot_tiles<1>(p, tile);
}

// One run of up to 8 rows, straight from E4M3 codes: what is decoded stays in registers for all rows.
template <int kRows, int kTiles>
inline void dot_codes(const PanelProduct& p, int64_t tile) {
  const PairsOfE4m3 pairs_of;
  const uint8_t* codes[kTiles];
  F sum[kTiles][kRows];
  for (int j = 0; j < kTiles; ++j) {
    codes[j] = p.codes + (tile + j) * p.codes_stride;
    for (int i = 0; i < kRows; ++i) sum[j][i] = f_set1(0.0f);
  }
  for (int64_t s = 0; s < p.steps; ++s) {
    const uint16_t* x = p.x + s * kStepElements;
    for (int k = 0; k < kStepColumns; k += 4) {
      const int64_t at = s * kStepElements + k * kTileRows,
                    skip = past_neighbours<kTiles, kCodesAhead>(at, p.codes_stride);
      __m512i pairs[kTiles][2];
      for (int j = 0; j < kTiles; ++j) {
        const uint8_t* from = codes[j] + at;
        prefetch<3, kCodesAhead>(from + skip, 64);
        pairs_of(from, &pairs[j][0], &pairs[j][1]);
      }
      // A pair of x serves all tiles and is done with: the sums need the registers.
      for (int h = 0; h < 2; ++h) {
        for (int i = 0; i < kRows; ++i) {
          for (int j = 0; j < kTiles; ++j)
            sum[j][i] = f_dot_bf16(sum[j][i], pairs[j][h], x + i * kStepColumns + k + 2 * h);
        }
      }
    }
  }
  for (int j = 0; j < kTiles; ++j) {
    for (int i = 0; i < kRows; ++i) f_store(p.sums + (tile + j) * p.sums_stride + i * kTileRows, sum[j][i]);
  }
}

inline void multiply_e4m3(const PanelProduct& p) {
  const auto take = [&]<int kIndex>() {
    constexpr int kRows = kIndex + 1;
    if (p.last_rows != kRows) return;
    int64_t tile = 0;
    for (; tile + 2 <= p.tiles; tile += 2) dot_codes<kRows, 2>(p, tile);
    if (tile < p.tiles) dot_codes<kRows, 1>(p, tile);
  };
  for_each_index<0, kCodeRows>(take);
}

// The limit: products from registers, enough sums to hide the latency.
inline double peak_bf16(int64_t steps, float* sink) {
  constexpr int kSums = 16;
  alignas(64) uint16_t numbers[32];
  const F small = f_mul(f_load(sink), f_set1(0x1p-10f));
  f_store_pairs(numbers, small, small);
  F sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = f_set1(sink[i]);
  for (int64_t step = 0; step < steps; ++step) {
    for (int i = 0; i < kSums; ++i) sums[i] = f_dot_bf16(sums[i], numbers, numbers);
  }
  for (int i = 0; i < kSums; ++i) sink[i] = f_reduce_add(sums[i]);
  return static_cast<double>(steps) * kSums * 32 * 2;
}
