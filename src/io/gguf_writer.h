// Writes one GGUF v3 file (io/gguf.h draws it): metadata, tensor table, then the data, streamed. The file
// appears under its name only when it is whole.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/file.h"

namespace bise {

// The metadata of a file, in the order of the calls. A key may be set once.
class GgufMetadata {
 public:
  void set_u32(std::string_view key, uint32_t value);
  void set_f32(std::string_view key, float value);
  void set_bool(std::string_view key, bool value);
  void set_string(std::string_view key, std::string_view value);
  void set_strings(std::string_view key, std::span<const std::string> values);
  void set_i32s(std::string_view key, std::span<const int32_t> values);
  void set_f32s(std::string_view key, std::span<const float> values);

  uint64_t count() const { return count_; }
  const std::string& bytes() const { return bytes_; }

 private:
  void begin(std::string_view key, uint32_t type);
  std::string bytes_;
  uint64_t count_ = 0;
};

struct GgufTensor {
  std::string name;
  int ggml_type = 0;           // of a format that weight_format knows
  std::vector<int64_t> shape;  // slowest dimension first, at most 4
};
// Bytes of its data; Error for rows that are no whole number of blocks, or a size that overflows.
Result<uint64_t> gguf_tensor_bytes(const GgufTensor& tensor);

class GgufWriter {
 public:
  // Writes everything before the data. Error: tensors that occur twice or do not fit their type, a file
  // that cannot be written.
  static Result<GgufWriter> create(const std::string& path, const GgufMetadata& metadata,
                                   std::vector<GgufTensor> tensors);

  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  uint64_t total_bytes() const { return total_bytes_; }  // of the tensors' data
  // The next bytes of the tensors, in order, in pieces that do not go beyond one tensor.
  Result<void> write(Bytes bytes);
  Result<void> commit();

 private:
  explicit GgufWriter(FileWriter file) : file_(std::move(file)) {}

  FileWriter file_;
  std::vector<GgufTensor> tensors_;
  std::vector<uint64_t> bytes_;
  uint64_t total_bytes_ = 0;
  size_t next_ = 0;
  uint64_t written_ = 0;  // bytes of the next tensor
};

}  // namespace bise
