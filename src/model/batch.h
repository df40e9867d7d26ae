// Batch: what one step computes. Made by the engine, read by model and backend, never changed there.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"

namespace bise {

// Rows of projected image features that replace the embeddings of image tokens.
struct ImageRows {
  MatrixView features;        // [n, hidden]; in backend memory, alive during the step
  int32_t first_feature = 0;  // features[first_feature + i] goes to rows[i]
  std::vector<int32_t> rows;  // of the step
};

struct Batch {
  std::vector<int32_t> ids;        // [tokens]
  std::vector<int32_t> positions;  // [tokens], absolute
  std::vector<int32_t> slots;      // [tokens], where K and V go
  std::vector<SequenceSpan> sequences;
  std::vector<ImageRows> images;
  std::vector<int32_t> logits_rows;  // rows whose logits are wanted, ascending
};

}  // namespace bise
