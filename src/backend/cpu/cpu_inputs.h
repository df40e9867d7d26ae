// The inputs of a product as the kernels of tiles read them, made once for all tiles. The tokens go in batches of
// kMaxTokens, the last of what is left.
#pragma once

#include <vector>

#include "backend/backend.h"
#include "backend/cpu/cpu_kernels.h"
#include "base/thread_pool.h"

namespace bise {

class CpuInputs {
 public:
  CpuInputs(const CpuKernels& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool) {}

  // x in 8 bits (run_layout.h).
  void quantize(MatrixView x);
  // x in float32 (FloatInputs). x itself must live as long as it is read from here.
  void arrange(MatrixView x);

  // The batch that begins with `token`, a multiple of kMaxTokens, of what was last given to the function above.
  const uint8_t* quantized(int64_t token) const { return records_.data() + token * record_blocks_ * kTokenRecord; }
  FloatInputs floats(int64_t token) const;

 private:
  const CpuKernels& kernels_;
  ThreadPool& pool_;
  std::vector<uint8_t> records_;
  int64_t record_blocks_ = 0;
  std::vector<float> columns_;  // batches of more than kFewTokens: [columns][tokens]
  MatrixView x_{nullptr, 0, 0};
};

}  // namespace bise
