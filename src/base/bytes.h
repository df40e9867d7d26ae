// Checked little-endian reads from a span, overflow-checked size arithmetic, alignment. Every parser
// of untrusted bytes reads through this room.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/error.h"

namespace bise {

using Bytes = std::span<const std::byte>;

inline Bytes as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
inline std::string_view as_text(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Overflow-checked arithmetic on sizes: true and the result, or false.
[[nodiscard]] inline bool checked_add(uint64_t a, uint64_t b, uint64_t* out) {
  return !__builtin_add_overflow(a, b, out);
}
[[nodiscard]] inline bool checked_mul(uint64_t a, uint64_t b, uint64_t* out) {
  return !__builtin_mul_overflow(a, b, out);
}

// For values that cannot be near 2^64; sizes from a file go through checked_round_up.
constexpr uint64_t round_up(uint64_t value, uint64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}
constexpr uint64_t ceil_div(uint64_t value, uint64_t divisor) {
  return (value + divisor - 1) / divisor;
}

[[nodiscard]] inline bool checked_round_up(uint64_t value, uint64_t multiple, uint64_t* out) {
  if (!checked_add(value, multiple - 1, out)) return false;
  *out -= *out % multiple;
  return true;
}

// Unaligned little-endian load; the caller has checked that sizeof(T) bytes are there.
template <class T>
T load_le(const void* p) {
  static_assert(std::is_trivially_copyable_v<T>);
  static_assert(std::endian::native == std::endian::little);
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

// Reads forward through bytes it does not own. A read past the end is an Error with the offset.
class ByteReader {
 public:
  explicit ByteReader(Bytes bytes) : bytes_(bytes) {}

  uint64_t offset() const { return offset_; }
  uint64_t remaining() const { return bytes_.size() - offset_; }

  template <class T>
  Result<T> read() {
    Bytes raw = TRY(take(sizeof(T)));
    return load_le<T>(raw.data());
  }
  Result<Bytes> take(uint64_t count) {
    if (count > remaining()) {
      return Error(ErrorCode::corrupt, "the file ends at byte " + std::to_string(bytes_.size()) +
                                           ", but " + std::to_string(count) +
                                           " bytes are needed at byte " + std::to_string(offset_));
    }
    Bytes part = bytes_.subspan(offset_, count);
    offset_ += count;
    return part;
  }

 private:
  Bytes bytes_;
  uint64_t offset_ = 0;
};

}  // namespace bise
