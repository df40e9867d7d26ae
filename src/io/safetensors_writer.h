// Writes a safetensors checkpoint in the files that Hugging Face's writer makes: shards of at most 5 GB
// named stem-00001-of-0000N.safetensors with an index, or one stem.safetensors. Tensors are streamed: no
// more than the caller's pieces are in memory. Nothing appears under its name before all is whole.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "tensor/dtype.h"

namespace bise {

struct StoredTensor {
  std::string name;
  DType dtype = DType::f32;      // not `block`
  std::vector<int64_t> shape;    // slowest dimension first; empty: one number
};
// Bytes of its data; Error when the size overflows or a dimension is negative.
Result<uint64_t> stored_bytes(const StoredTensor& tensor);

struct SafetensorsWriterOptions {
  std::string stem = "model";  // "model", "consolidated"
  uint64_t max_shard_bytes = 5'000'000'000;
};

class SafetensorsWriter {
 public:
  // Decides which tensor goes where: shards are filled in the order given; within one the tensors with
  // wider elements come first, so that each is aligned. Error: names that no reader takes or that
  // occur twice, a folder that cannot be written.
  static Result<SafetensorsWriter> create(const std::string& folder, std::vector<StoredTensor> tensors,
                                          const SafetensorsWriterOptions& options);

  // In the order in which their bytes must come.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  uint64_t total_bytes() const { return total_bytes_; }
  // The next bytes of the tensors, in pieces that need not end with a tensor but must not go beyond one.
  Result<void> write(Bytes bytes);
  // All bytes were written: the files get their names, the index last.
  Result<void> commit();

 private:
  struct Shard {
    std::string file;          // its name in the folder
    size_t first = 0, end = 0;  // of tensors_
  };
  SafetensorsWriter() = default;
  Result<void> begin_shard(const Shard& shard);

  std::string folder_, stem_;
  std::vector<StoredTensor> tensors_;
  std::vector<uint64_t> bytes_;  // of each tensor
  std::vector<Shard> shards_;
  std::vector<FileWriter> files_;  // those begun, in the order of shards_
  uint64_t total_bytes_ = 0;
  size_t next_ = 0;            // the tensor that the next byte belongs to
  uint64_t written_ = 0;       // bytes of it
};

}  // namespace bise
