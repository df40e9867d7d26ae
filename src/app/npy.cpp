#include "app/npy.h"

namespace bise {

std::string npy_header(const std::vector<int64_t>& shape) {
  std::string text = "{'descr': '<f4', 'fortran_order': False, 'shape': (";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : " ") + std::to_string(shape[i]) + ",";
  }
  if (shape.size() > 1) text.pop_back();  // a Python tuple needs the comma only when it holds one
  text += "), }";
  constexpr size_t kPrefix = 10, kAlignment = 64;
  size_t total = round_up(kPrefix + text.size() + 1, kAlignment);
  text.resize(total - kPrefix - 1, ' ');
  text += '\n';
  std::string header = "\x93NUMPY";
  header += '\x01';
  header += '\0';
  header += static_cast<char>(text.size() & 0xFF);
  header += static_cast<char>(text.size() >> 8);
  return header + text;
}

Result<NpyWriter> NpyWriter::create(const std::string& path, const std::vector<int64_t>& shape) {
  uint64_t count = 1;
  for (int64_t size : shape) {
    if (size < 0 || !checked_mul(count, static_cast<uint64_t>(size), &count)) {
      return Error(ErrorCode::invalid_argument, path + ": a shape with a size of " +
                                                    std::to_string(size) + " cannot be written");
    }
  }
  NpyWriter writer(TRY(FileWriter::create(path)), count);
  TRY(writer.file_.write(as_bytes(npy_header(shape))));
  return writer;
}

Result<void> NpyWriter::write(std::span<const float> values) {
  written_ += values.size();
  return file_.write(std::as_bytes(values));
}

Result<void> NpyWriter::close() {
  if (written_ != expected_) {
    return Error(ErrorCode::internal, "the array has " + std::to_string(written_) +
                                          " values, its shape says " + std::to_string(expected_));
  }
  return file_.commit();
}

Result<void> write_npy(const std::string& path, const std::vector<int64_t>& shape,
                       std::span<const float> values) {
  NpyWriter writer = TRY(NpyWriter::create(path, shape));
  TRY(writer.write(values));
  return writer.close();
}

}  // namespace bise
