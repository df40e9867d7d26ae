// NPY files (format 1.0, little-endian float32, C order): how probe hands arrays to other tools.
//   "\x93NUMPY" 1 0, u16 header length, a Python dict literal padded with blanks to 64 bytes, data.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/file.h"

namespace bise {

// Everything before the data; a multiple of 64 bytes.
std::string npy_header(const std::vector<int64_t>& shape);

// Writes rows as they come, so that an array need not be in memory as a whole. The file appears
// under its name on close(), which fails when the values written are not as many as the shape says.
class NpyWriter {
 public:
  static Result<NpyWriter> create(const std::string& path, const std::vector<int64_t>& shape);
  Result<void> write(std::span<const float> values);
  Result<void> close();

 private:
  NpyWriter(FileWriter file, uint64_t expected) : file_(std::move(file)), expected_(expected) {}
  FileWriter file_;
  uint64_t expected_ = 0, written_ = 0;
};

Result<void> write_npy(const std::string& path, const std::vector<int64_t>& shape,
                       std::span<const float> values);

}  // namespace bise
