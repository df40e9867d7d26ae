// Weight: a matrix [rows, columns] (rows = outputs) in the layout that its backend's kernels want.
// Opaque to everyone but its backend. Several checkpoint matrices that run as one product (Q+K+V,
// gate+up) are one Weight, their rows stacked in order.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "tensor/weight_view.h"

namespace bise {

struct WeightStorage {
  virtual ~WeightStorage() = default;
};

struct Weight {
  std::string name;
  FormatId format{};
  int64_t rows = 0;
  int64_t columns = 0;
  uint64_t bytes = 0;      // memory held or mapped for it, scales included: what one step reads
  uint64_t decoded_bytes = 0;  // of them: no kernel multiplies these, they are decoded row by row
  bool is_mapped = false;  // the storage is a slice of the checkpoint's file map, which must stay open
  bool is_streamed = false;  // its bytes are read from the file whenever they are needed
  std::unique_ptr<WeightStorage> storage;
};

}  // namespace bise
