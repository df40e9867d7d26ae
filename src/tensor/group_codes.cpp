#include "tensor/group_codes.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/float_types.h"
#include "tensor/decoders.h"

namespace bise {
namespace {

const uint8_t* bytes_of(Bytes bytes) { return reinterpret_cast<const uint8_t*>(bytes.data()); }

// Codes of `bits` bits in 32-bit words, least significant first, the words `stride` bytes apart:
// one dense stream, or `per_word` codes in each word and unused bits above them.
struct CodeStream {
  const uint8_t* first;
  int64_t stride;
  int32_t bits, per_word;

  uint32_t word(int64_t index) const { return load_le<uint32_t>(first + index * stride); }
  uint32_t at(int64_t index) const {
    const uint32_t mask = (1u << bits) - 1;
    if (per_word != 0) return (word(index / per_word) >> (index % per_word * bits)) & mask;
    const int64_t bit = index * bits, at = bit / 32;
    const int shift = static_cast<int>(bit % 32);
    uint32_t value = word(at) >> shift;
    if (shift + bits > 32) value |= word(at + 1) << (32 - shift);
    return value & mask;
  }
};

int64_t words_of_row(const WeightView& w) {
  if (w.codes_per_word != 0) return (w.columns + w.codes_per_word - 1) / w.codes_per_word;
  return (w.columns * w.bits + 31) / 32;
}

// AWQ: output channel i of eight lies in nibble kAwqNibble[i] of their word.
constexpr int kAwqNibble[8] = {0, 4, 1, 5, 2, 6, 3, 7};

uint32_t awq_at(Bytes words, int64_t line, int64_t rows, int64_t row) {
  uint32_t word = load_le<uint32_t>(words.data() + (line * (rows / 8) + row / 8) * 4);
  return (word >> (4 * kAwqNibble[row % 8])) & 15u;
}

void read_nibbles(const uint8_t* bytes, int64_t first, int64_t count, uint8_t* out) {
  for (int64_t i = 0; i < count; ++i) {
    const int64_t at = first + i;
    out[i] = static_cast<uint8_t>((bytes[at / 2] >> (4 * (at % 2))) & 15);
  }
}

// Where the scale, bias or unpacked zero point of (row, group) stands among its tensor's elements.
int64_t part_index(const WeightView& w, const TensorView& part, int64_t row, int64_t group) {
  const int64_t stored = w.stored_row(row);
  if (w.format == FormatId::gptq || w.format == FormatId::awq) return group * w.rows + stored;
  if (part.bytes.size() == dtype_bytes(part.dtype)) return 0;  // one for the whole matrix
  return stored * num_groups(w) + group;
}

uint32_t bits_of(const TensorView& part, int64_t index) {
  const std::byte* p = part.bytes.data();
  switch (dtype_bytes(part.dtype)) {
    case 1: return load_le<uint8_t>(p + index);
    case 2: return load_le<uint16_t>(p + 2 * index);
    default: return load_le<uint32_t>(p + 4 * index);
  }
}

float value_of(ScaleType type, uint32_t bits) {
  switch (type) {
    case ScaleType::f16: return f16_to_f32(static_cast<uint16_t>(bits));
    case ScaleType::bf16: return bf16_to_f32(static_cast<uint16_t>(bits));
    case ScaleType::e8m0: return e8m0_to_f32(static_cast<uint8_t>(bits));
    case ScaleType::e4m3: return e4m3_to_f32(static_cast<uint8_t>(bits));
    case ScaleType::f32: break;
  }
  return std::bit_cast<float>(bits);
}

// GGUF's NVFP4: blocks of 64 columns, 4 scale bytes and 32 bytes of nibbles.
const uint8_t* nvfp4_block(const WeightView& w, int64_t row, int64_t column) {
  return row_bytes(w, weight_format(FormatId::nvfp4_gguf), row, column);
}

// The bits that are all set in an infinity or in what is not a number.
uint32_t special_bits(ScaleType type) {
  switch (type) {
    case ScaleType::f16: return 0x7C00u;
    case ScaleType::bf16: return 0x7F80u;
    case ScaleType::f32: return 0x7F800000u;
    case ScaleType::e8m0: return 0xFFu;
    case ScaleType::e4m3: break;
  }
  return 0x7Fu;
}

// The first element with all of `mask` set, or -1. Files hold up to a billion scales.
template <class T>
int64_t find_special(Bytes bytes, uint32_t mask) {
  const int64_t count = static_cast<int64_t>(bytes.size() / sizeof(T));
  auto is_special = [&](int64_t i) {
    return (load_le<T>(bytes.data() + i * static_cast<int64_t>(sizeof(T))) & mask) == mask;
  };
  int found = 0;
  for (int64_t i = 0; i < count; ++i) found |= is_special(i);
  if (found == 0) return -1;
  int64_t at = 0;
  while (!is_special(at)) ++at;
  return at;
}

Result<void> check_finite(const TensorView& part, ScaleType type) {
  const uint32_t mask = special_bits(type), width = dtype_bytes(part.dtype);
  const int64_t at = width == 1   ? find_special<uint8_t>(part.bytes, mask)
                     : width == 2 ? find_special<uint16_t>(part.bytes, mask)
                                  : find_special<uint32_t>(part.bytes, mask);
  if (at < 0) return {};
  const int64_t per_row = part.shape.empty() ? 1 : part.shape.back();
  return Error(ErrorCode::corrupt, "tensor " + part.name + ": found " +
                                       std::to_string(value_of(type, bits_of(part, at))) + " at [" +
                                       std::to_string(at / per_row) + ", " +
                                       std::to_string(at % per_row) + "], expected finite numbers");
}

}  // namespace

bool has_group_codes(FormatId format) {
  return format == FormatId::nvfp4_gguf || weight_format(format).block_bytes == 0;
}

CodeKind code_kind(const WeightView& w) {
  switch (w.format) {
    case FormatId::nvfp4:
    case FormatId::nvfp4_gguf:
    case FormatId::mxfp4: return CodeKind::e2m1;
    case FormatId::mxfp8: return CodeKind::e4m3;
    default: return CodeKind::integer;
  }
}

void read_codes(const WeightView& w, int64_t row, int64_t first, int64_t count, uint8_t* out) {
  const int64_t stored = w.stored_row(row);
  const uint8_t* bytes = bytes_of(w.codes);
  switch (w.format) {
    case FormatId::nvfp4:
    case FormatId::mxfp4: return read_nibbles(bytes + stored * (w.columns / 2), first, count, out);
    case FormatId::mxfp8:
      std::memcpy(out, bytes + stored * w.columns + first, static_cast<size_t>(count));
      return;
    case FormatId::int8_plain:
      for (int64_t i = 0; i < count; ++i) {
        out[i] = static_cast<uint8_t>(bytes[stored * w.columns + first + i] ^ 0x80);
      }
      return;
    case FormatId::nvfp4_gguf:
      for (int64_t i = 0; i < count; ++i) {
        const int64_t column = first + i, within = column % 16;
        const uint8_t* codes = nvfp4_block(w, row, column) + 4 + column % 64 / 16 * 8;
        out[i] = static_cast<uint8_t>((codes[within % 8] >> (within < 8 ? 0 : 4)) & 15);
      }
      return;
    case FormatId::awq:
      {
        const int64_t step = w.rows / 8 * 4;
        const uint8_t* words = bytes + first * step + stored / 8 * 4;
        const int shift = 4 * kAwqNibble[stored % 8];
        for (int64_t i = 0; i < count; ++i) out[i] = (load_le<uint32_t>(words + i * step) >> shift) & 15u;
      }
      return;
    case FormatId::gptq: {
      const CodeStream column{bytes + 4 * stored, 4 * w.rows, w.bits, 0};
      for (int64_t i = 0; i < count; ++i) out[i] = static_cast<uint8_t>(column.at(first + i));
      return;
    }
    default: break;
  }
  const uint8_t* words = bytes + stored * words_of_row(w) * 4;
  if (w.bits == 4) return read_nibbles(words, first, count, out);
  if (w.bits == 8) {
    std::memcpy(out, words + first, static_cast<size_t>(count));
    return;
  }
  const CodeStream stream{words, 4, w.bits, w.codes_per_word};
  for (int64_t i = 0; i < count; ++i) out[i] = static_cast<uint8_t>(stream.at(first + i));
}

int64_t num_groups(const WeightView& w) { return (w.columns + w.group - 1) / w.group; }

int64_t group_of(const WeightView& w, int64_t column) {
  if (w.group_index.shape.empty()) return column / w.group;
  return load_le<int32_t>(w.group_index.bytes.data() + 4 * column);
}

ScaleType scale_type(const WeightView& w) {
  switch (w.format) {
    case FormatId::nvfp4:
    case FormatId::nvfp4_gguf: return ScaleType::e4m3;
    case FormatId::mxfp4:
    case FormatId::mxfp8: return ScaleType::e8m0;
    default: break;
  }
  if (w.scale.dtype == DType::f16) return ScaleType::f16;
  return w.scale.dtype == DType::bf16 ? ScaleType::bf16 : ScaleType::f32;
}

uint32_t scale_bits(const WeightView& w, int64_t row, int64_t group) {
  if (w.format == FormatId::nvfp4_gguf) {
    // ggml reads the byte without a sign, and 7F as zero.
    uint32_t bits = nvfp4_block(w, row, group * 16)[group % 4] & 0x7Fu;
    return bits == 0x7F ? 0 : bits;
  }
  return bits_of(w.scale, part_index(w, w.scale, row, group));
}

float scale_value(const WeightView& w, int64_t row, int64_t group) {
  const float value = value_of(scale_type(w), scale_bits(w, row, group));
  return w.global_divides ? value / w.global_scale : value * w.global_scale;
}

ZeroKind zero_kind(const WeightView& w) {
  if (w.zero.shape.empty()) return ZeroKind::none;
  return w.format == FormatId::mlx_affine ? ZeroKind::bias : ZeroKind::point;
}

int32_t zero_point(const WeightView& w, int64_t row, int64_t group) {
  if (zero_kind(w) != ZeroKind::point) return code_offset(w);
  if (w.zero.dtype == DType::i8) {  // not packed: a signed number
    uint32_t bits = bits_of(w.zero, part_index(w, w.zero, row, group));
    return static_cast<int8_t>(bits) + code_offset(w);
  }
  const int64_t stored = w.stored_row(row);
  if (w.format == FormatId::awq) {
    return static_cast<int32_t>(awq_at(w.zero.bytes, group, w.rows, stored)) + w.zero_offset;
  }
  const uint8_t* words = bytes_of(w.zero.bytes);
  if (w.format == FormatId::gptq) {
    const CodeStream line{words + group * w.zero.shape[1] * 4, 4, w.bits, 0};
    return static_cast<int32_t>(line.at(stored)) + w.zero_offset;
  }
  const CodeStream down{words + 4 * group, 4 * num_groups(w), w.bits, w.codes_per_word};
  return static_cast<int32_t>(down.at(stored)) + w.zero_offset;
}

uint32_t bias_bits(const WeightView& w, int64_t row, int64_t group) {
  return bits_of(w.zero, part_index(w, w.zero, row, group));
}

float bias_value(const WeightView& w, int64_t row, int64_t group) {
  return value_of(scale_type(w), bias_bits(w, row, group));
}

GroupPart group_part(const WeightView& w, const TensorView& part, int64_t row) {
  if (w.format == FormatId::nvfp4_gguf) return {};
  const int64_t width = dtype_bytes(part.dtype), first = part_index(w, part, row, 0);
  const int64_t next = num_groups(w) > 1 ? part_index(w, part, row, 1) : first;
  return {bytes_of(part.bytes) + first * width, (next - first) * width};
}

Result<void> check_group_parts(const WeightView& w) {
  const int64_t groups = num_groups(w);
  for (int64_t k = 0; !w.group_index.shape.empty() && k < w.columns; ++k) {
    const int64_t group = group_of(w, k);
    if (group >= 0 && group < groups) continue;
    return Error(ErrorCode::corrupt, "tensor " + w.group_index.name + ": found group " +
                                         std::to_string(group) + " for column " +
                                         std::to_string(k) + ", expected 0 to " +
                                         std::to_string(groups - 1));
  }
  if (w.format != FormatId::nvfp4_gguf) TRY(check_finite(w.scale, scale_type(w)));
  const ZeroKind zero = zero_kind(w);
  if (zero == ZeroKind::bias) return check_finite(w.zero, scale_type(w));
  const int32_t last_code = (int32_t{1} << w.bits) - 1;
  // Packed zero points without an offset have no room for anything else than a code.
  const bool any = zero == ZeroKind::none || (w.zero.dtype != DType::i8 && w.zero_offset == 0);
  for (int64_t g = 0; !any && g < groups; ++g) {
    for (int64_t row = 0; row < w.rows; ++row) {
      const int32_t point = zero_point(w, row, g);
      if (point >= 0 && point <= last_code) continue;
      return Error(ErrorCode::corrupt, "tensor " + w.zero.name + ": found the zero point " +
                                           std::to_string(point) + " for row " +
                                           std::to_string(row) + ", group " + std::to_string(g) +
                                           ", expected 0 to " + std::to_string(last_code) +
                                           " (counted from the lowest code)");
    }
  }
  return {};
}

Result<void> check_codes(const WeightView& w, int64_t row) {
  if (w.format != FormatId::fp8_e4m3 && w.format != FormatId::mxfp8) return {};
  const uint8_t* codes = bytes_of(w.codes) + w.stored_row(row) * w.columns;
  // Eight codes at a time first: this reads every byte of a model.
  constexpr uint64_t kEach = 0x0101010101010101;
  uint64_t found = 0;
  int64_t k = 0;
  for (; k + 8 <= w.columns; k += 8) found |= ((load_le<uint64_t>(codes + k) & (0x7F * kEach)) + kEach) & (0x80 * kEach);
  if (found != 0) k = 0;
  for (; k < w.columns; ++k) {
    if ((codes[k] & 0x7F) != 0x7F) continue;
    return Error(ErrorCode::corrupt, "tensor " + w.name + ": the FP8 code at row " +
                                         std::to_string(row) + ", column " + std::to_string(k) +
                                         " is not a number");
  }
  return {};
}

// --- the reference decoders
// -----------------------------------------------------------------------

namespace {

// Calls value(code, column) for the codes of the range, in order.
template <class Value>
void each_code(const WeightView& w, int64_t row, int64_t first, std::span<float> out, Value value) {
  uint8_t codes[256];
  for (size_t done = 0; done < out.size();) {
    const size_t count = std::min(out.size() - done, sizeof codes);
    const int64_t at = first + static_cast<int64_t>(done);
    read_codes(w, row, at, static_cast<int64_t>(count), codes);
    for (size_t i = 0; i < count; ++i)
      out[done + i] = value(codes[i], at + static_cast<int64_t>(i));
    done += count;
  }
}

}  // namespace

void decode_integer_groups(const WeightView& w, int64_t row, int64_t first, std::span<float> out) {
  const bool has_bias = zero_kind(w) == ZeroKind::bias;
  int64_t group = -1;
  int32_t zero = 0;
  float scale = 0.0f, bias = 0.0f;
  each_code(w, row, first, out, [&](uint8_t code, int64_t column) {
    if (int64_t next = group_of(w, column); next != group) {
      group = next;
      scale = scale_value(w, row, group);
      if (has_bias) bias = bias_value(w, row, group);
      else zero = zero_point(w, row, group);
    }
    return has_bias ? static_cast<float>(code) * scale + bias
                    : static_cast<float>(code - zero) * scale;
  });
}

void decode_float_groups(const WeightView& w, int64_t row, int64_t first, std::span<float> out) {
  const bool fp4 = code_kind(w) == CodeKind::e2m1;
  int64_t group = -1;
  float scale = 0.0f;
  each_code(w, row, first, out, [&](uint8_t code, int64_t column) {
    if (int64_t next = column / w.group; next != group) {
      group = next;
      scale = scale_value(w, row, group);
    }
    return (fp4 ? e2m1_to_f32(code) : e4m3_to_f32(code)) * scale;
  });
}

}  // namespace bise
