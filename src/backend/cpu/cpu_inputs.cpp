#include "backend/cpu/cpu_inputs.h"

#include <algorithm>

namespace bise {
namespace {

int batch_tokens(int64_t rows, int64_t first) { return static_cast<int>(std::min<int64_t>(kMaxTokens, rows - first)); }

}  // namespace

void CpuInputs::quantize(MatrixView x) {
  record_blocks_ = x.columns / kBlock;
  records_.resize(static_cast<size_t>(x.rows * record_blocks_ * kTokenRecord));
  constexpr int64_t kRunTokens = 4;  // at most
  auto runs = [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin * kRunTokens; i < std::min(x.rows, end * kRunTokens);) {
      const int64_t batch = i / kMaxTokens * kMaxTokens;
      const int first = static_cast<int>(i - batch), tokens = batch_tokens(x.rows, batch);
      kernels_.quantize_run(x.row_f32(i), x.columns, first, tokens,
                            records_.data() + batch * record_blocks_ * kTokenRecord);
      i += run_tokens(first, tokens);
    }
  };
  const int64_t num_runs = (x.rows + kRunTokens - 1) / kRunTokens;
  if (x.rows * x.columns < kSerialElements) return runs(0, num_runs, 0);
  pool_.parallel_for(num_runs, std::max<int64_t>(1, num_runs / (int64_t{pool_.num_threads()} * 8)), runs);
}

void CpuInputs::arrange(MatrixView x) {
  x_ = x;
  if (x.rows <= kFewTokens) return;
  columns_.resize(static_cast<size_t>(x.rows * x.columns));
  // A piece of columns of a batch: as many lines of memory as the nearest cache holds, read and written.
  constexpr int64_t kPiece = 64;
  const int64_t pieces = (x.columns + kPiece - 1) / kPiece, batches = (x.rows + kMaxTokens - 1) / kMaxTokens;
  auto arrange_pieces = [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i / pieces * kMaxTokens, from = i % pieces * kPiece;
      const int64_t tokens = batch_tokens(x.rows, first), to = std::min(x.columns, from + kPiece);
      if (tokens <= kFewTokens) continue;
      float* batch = columns_.data() + first * x.columns;
      for (int64_t t = 0; t < tokens; ++t) {
        const float* row = x.row_f32(first + t);
        for (int64_t k = from; k < to; ++k) batch[k * tokens + t] = row[k];
      }
    }
  };
  if (x.rows * x.columns < kSerialElements) return arrange_pieces(0, pieces * batches, 0);
  pool_.parallel_for(pieces * batches, 16, arrange_pieces);
}

FloatInputs CpuInputs::floats(int64_t token) const {
  const int tokens = batch_tokens(x_.rows, token);
  if (tokens <= kFewTokens) return {x_.row_f32(token), tokens, x_.columns};
  return {columns_.data() + token * x_.columns, tokens, 0};
}

}  // namespace bise
