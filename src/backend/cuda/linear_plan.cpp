#include "backend/cuda/linear_plan.h"

namespace bise::gpu {

LinearPlan plan_linear(int64_t rows, int64_t tokens, int32_t num_multiprocessors) {
  constexpr double kSplitCost = 0.02;  // of a turn: parts are written and read, and a ring begins empty
  LinearPlan plan;
  plan.n_tiles = tokens <= 8 ? 1 : tokens <= 16 ? 2 : tokens <= 32 ? 4 : 8;
  plan.row_blocks = (rows + kLinearTiles * kTileRows - 1) / (kLinearTiles * kTileRows);
  plan.token_blocks = (tokens + 8 * plan.n_tiles - 1) / (8 * plan.n_tiles);
  // In turns of all blocks that stand at once: few turns that are full, and no splits for nothing.
  const int64_t blocks = plan.row_blocks * plan.token_blocks,
                at_once = int64_t{num_multiprocessors} * blocks_at_once(plan.n_tiles);
  double best = 0.0;
  for (int32_t splits = 1; splits <= kRanges; splits *= 2) {
    const int64_t turns = (blocks * splits + at_once - 1) / at_once;
    const double cost = static_cast<double>(turns) / splits + kSplitCost * splits;
    if (splits > 1 && cost >= best) continue;
    best = cost;
    plan.splits = splits;
  }
  return plan;
}

}  // namespace bise::gpu
