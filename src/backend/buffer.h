// Buffer: move-only memory of one backend. MatrixView looks at activations inside one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace bise {

class Buffer {
 public:
  using Release = void (*)(void* data, size_t bytes);
  Buffer() = default;
  Buffer(void* data, size_t bytes, Release release)
      : data_(data), bytes_(bytes), release_(release) {}
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    if (data_ != nullptr) release_(data_, bytes_);
  }

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  void swap(Buffer& other) {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(release_, other.release_);
  }
  void* data_ = nullptr;
  size_t bytes_ = 0;
  Release release_ = nullptr;
};

// Memory of a device beside the host.
struct DeviceMemory {
  uint64_t free_bytes = 0, total_bytes = 0;
};

// Activations [rows, columns] in the backend's activation type (float32 on the CPU), row-major and
// dense. Looks, owns nothing.
struct MatrixView {
  void* data = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;

  float* f32() const { return static_cast<float*>(data); }
  float* row_f32(int64_t row) const { return f32() + row * columns; }
};

}  // namespace bise
