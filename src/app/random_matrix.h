// Random tensors of the formats of model_formats, and one matrix of them in memory.
#pragma once

#include <span>
#include <vector>

#include "app/model_formats.h"
#include "tensor/weight_view.h"

namespace bise {

// Bytes of a tensor; Error when the size overflows, or a row is no whole number of blocks.
Result<uint64_t> random_tensor_bytes(const RandomTensor& tensor);
// Of the smallest part that can be filled: an element, or a block of `weights`.
uint64_t random_element_bytes(const RandomTensor& tensor);
// Elements from `first` on, as many as fill `out`, of the tensor number `stream` of `seed`. They depend on
// these alone, so any cut gives the same bytes. In `codes` first is a multiple of 8 bytes.
void fill_random_tensor(const RandomTensor& tensor, uint64_t seed, uint64_t stream, uint64_t first, std::span<std::byte> out);

// A matrix with random weights, as a checkpoint would hand it to the backend. Movable; the view stays valid.
class RandomMatrixWeight {
 public:
  // Error: columns that the format cannot have.
  static Result<RandomMatrixWeight> create(const ModelFormat& format, Layout layout, int64_t rows, int64_t columns, uint64_t seed);
  const WeightView& view() const { return view_; }
  uint64_t stored_bytes() const;

 private:
  RandomMatrixWeight() = default;
  std::vector<std::vector<std::byte>> tensors_;
  WeightView view_;
};

}  // namespace bise
