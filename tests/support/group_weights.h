// Random weights of every format of tensor/group_codes.h, packed bit by bit from plain arrays that
// stay beside them: the slow twin of reading and decoding.
#pragma once

#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/float_types.h"
#include "tensor/group_codes.h"

namespace bise::test {

struct GroupCase {
  FormatId format = FormatId::int_packed;
  int32_t bits = 4;
  int64_t group = 32;              // kept within the columns
  DType scale_type = DType::bf16;  // of integer formats
  bool has_zeros = false;          // GPTQ and AWQ always have them
  bool act_order = false;          // a group index that is not column / group
  bool gaps = false;               // old words: 32 / bits codes in each
  bool unpacked_zeros = false;     // one int8 each
  int64_t head = 0;                // rows interleaved per head
};

inline std::vector<GroupCase> every_group_case() {
  std::vector<GroupCase> cases;
  auto add = [&](GroupCase c) { cases.push_back(c); };
  for (int32_t bits = 1; bits <= 8; ++bits) {
    add({FormatId::int_packed, bits, 32});
    add({FormatId::int_packed, bits, 24, DType::f16, true});
    if (32 % bits != 0) add({FormatId::int_packed, bits, 32, DType::f32, true, false, true});
    if (bits != 7)
      add({FormatId::mlx_affine, bits, 32, bits % 2 == 0 ? DType::bf16 : DType::f16, true});
  }
  add({FormatId::int_packed, 4, 1 << 20});
  add({FormatId::int_packed, 4, 32, DType::bf16, true, true});
  add({FormatId::int_packed, 4, 32, DType::f16, true, false, false, true});
  add({FormatId::int_packed, 4, 32, DType::f16, true, false, false, false, 8});
  add({FormatId::int8_plain, 8, 32});
  add({FormatId::int8_plain, 8, 1 << 20, DType::f32, true, false, false, true, 8});
  for (int32_t bits : {2, 3, 4, 8}) {
    add({FormatId::gptq, bits, 32, DType::f16});
    add({FormatId::gptq, bits, 32, DType::f16, true, true, false, false, 8});
  }
  add({FormatId::awq, 4, 32, DType::f16});
  add({FormatId::awq, 4, 64, DType::f16, true, false, false, false, 8});
  add({FormatId::mlx_affine, 4, 64, DType::f16, true, false, false, false, 8});
  for (int64_t head : {0, 8}) {
    add({FormatId::nvfp4, 4, 16, DType::f8_e4m3, false, false, false, false, head});
    add({FormatId::mxfp4, 4, 32, DType::u8, false, false, false, false, head});
    add({FormatId::mxfp8, 8, 32, DType::u8, false, false, false, false, head});
    add({FormatId::nvfp4_gguf, 4, 16, DType::f8_e4m3, false, false, false, false, head});
  }
  return cases;
}

class GroupWeight {
 public:
  WeightView view;
  GroupCase what;

  // `rows` a multiple of 32 and of the head, `columns` of 64.
  GroupWeight(const GroupCase& c, int64_t rows, int64_t columns, uint64_t seed)
      : what(c), random_(static_cast<uint32_t>(seed)) {
    view.name = "random";
    view.format = c.format;
    view.rows = rows;
    view.columns = columns;
    view.bits = c.bits;
    view.group = std::min(c.group, columns);
    view.order.interleaved_head = c.head;
    view.codes_per_word = c.gaps ? 32 / c.bits : 0;
    groups_ = (columns + view.group - 1) / view.group;
    for (int64_t i = 0; i < rows * columns; ++i) codes_.push_back(code());
    for (int64_t i = 0; i < rows * groups_; ++i) {
      scales_.push_back(scale());
      zeros_.push_back(zero());
    }
    if (c.format == FormatId::nvfp4) view.global_scale = 96.0f;
    if (c.format == FormatId::nvfp4_gguf) view.global_scale = 0.0123f;
    view.global_divides = c.format == FormatId::nvfp4;
    pack();
  }

  // The truth at a row in half-split order.
  uint8_t code_at(int64_t row, int64_t column) const {
    return codes_[static_cast<size_t>(view.stored_row(row) * view.columns + column)];
  }
  float value_at(int64_t row, int64_t column) const {
    const int64_t group =
        index_.empty() ? column / view.group : index_[static_cast<size_t>(column)];
    const size_t at = static_cast<size_t>(view.stored_row(row) * groups_ + group);
    float scale = scales_[at];
    scale = view.global_divides ? scale / view.global_scale : scale * view.global_scale;
    const float u = static_cast<float>(code_at(row, column));
    switch (code_kind(view)) {
      case CodeKind::e2m1: return e2m1_to_f32(code_at(row, column)) * scale;
      case CodeKind::e4m3: return e4m3_to_f32(code_at(row, column)) * scale;
      case CodeKind::integer: break;
    }
    if (what.format == FormatId::mlx_affine) return u * scale + zeros_[at];
    return (u - (has_zeros() ? zeros_[at] : static_cast<float>(code_offset(view)))) * scale;
  }

 private:
  bool has_zeros() const {
    return what.has_zeros || what.format == FormatId::gptq || what.format == FormatId::awq;
  }
  uint32_t draw(uint32_t count) { return static_cast<uint32_t>(random_()) % count; }
  uint8_t code() {
    uint32_t u = draw(1u << view.bits);
    if (what.format == FormatId::mxfp8 && (u & 0x7F) == 0x7F) u ^= 1;
    return static_cast<uint8_t>(u);
  }
  float scale() {
    switch (what.scale_type) {
      case DType::u8: return std::ldexp(1.0f, static_cast<int>(draw(9)) - 12);
      case DType::f8_e4m3: return e4m3_to_f32(static_cast<uint8_t>(8 + draw(100)));
      default: break;
    }
    float value = std::ldexp(static_cast<float>(64 + draw(64)), -14);
    return draw(3) == 0 ? -value : value;
  }
  float zero() {
    if (what.format == FormatId::mlx_affine) return scale() * 8;
    // GPTQ stores one less, and there is no room for -1.
    if (what.format == FormatId::gptq) return static_cast<float>(1 + draw((1u << view.bits) - 1));
    return static_cast<float>(draw(1u << view.bits));
  }

  using Raw = std::vector<std::byte>;
  Bytes keep(Raw raw) {
    // An odd address: files need not be aligned.
    raw.insert(raw.begin(), std::byte{0xAA});
    held_.push_back(std::make_unique<Raw>(std::move(raw)));
    return Bytes(*held_.back()).subspan(1);
  }
  static void set_bit(Raw& raw, uint64_t bit, bool value) {
    if (value) raw[bit / 8] |= std::byte{static_cast<uint8_t>(1u << (bit % 8))};
  }
  // Word and bit in it of element i of a run of codes.
  std::pair<uint64_t, uint64_t> place(uint64_t i, uint64_t b) const {
    const uint64_t bits = static_cast<uint64_t>(view.bits);
    const uint64_t per_word = static_cast<uint64_t>(view.codes_per_word);
    if (per_word != 0) return {i / per_word, i % per_word * bits + b};
    return {(i * bits + b) / 32, (i * bits + b) % 32};
  }
  uint64_t words(int64_t count) const {
    return place(static_cast<uint64_t>(count - 1), view.bits - 1).first + 1;
  }
  // A run of codes for each of `lines`: line l's word w is word w * word_stride + l * line_stride.
  template <class Value>
  Raw pack_words(int64_t lines, int64_t count, uint64_t word_stride, uint64_t line_stride,
                 Value value) const {
    Raw raw(words(count) * static_cast<uint64_t>(lines) * 4);
    for (int64_t l = 0; l < lines; ++l) {
      for (int64_t i = 0; i < count; ++i) {
        for (int b = 0; b < view.bits; ++b) {
          auto [word, bit] = place(static_cast<uint64_t>(i), static_cast<uint64_t>(b));
          const uint64_t at = word * word_stride + static_cast<uint64_t>(l) * line_stride;
          set_bit(raw, at * 32 + bit, (value(l, i) >> b & 1) != 0);
        }
      }
    }
    return raw;
  }
  Raw pack_awq(int64_t lines, int64_t rows, bool zeros) const {
    constexpr int kOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};  // nibble -> output channel
    Raw raw(static_cast<size_t>(lines * rows / 2));
    for (int64_t l = 0; l < lines; ++l) {
      for (int64_t n = 0; n < rows; ++n) {
        const int64_t row = n / 8 * 8 + kOrder[n % 8];
        const uint32_t u =
            zeros ? static_cast<uint32_t>(zeros_[static_cast<size_t>(row * groups_ + l)])
                  : codes_[static_cast<size_t>(row * view.columns + l)];
        raw[static_cast<size_t>((l * rows + n) / 2)] |=
            std::byte{static_cast<uint8_t>(u << (n % 2 * 4))};
      }
    }
    return raw;
  }
  void put_float(Raw& raw, float value) const {
    auto put = [&](auto bits) {
      raw.resize(raw.size() + sizeof bits);
      std::memcpy(&raw[raw.size() - sizeof bits], &bits, sizeof bits);
    };
    switch (what.scale_type) {
      case DType::f16: put(f32_to_f16(value)); break;
      case DType::bf16: put(f32_to_bf16(value)); break;
      case DType::f32: put(value); break;
      case DType::u8: put(static_cast<uint8_t>(std::ilogb(value) + 127)); break;
      default: put(f32_to_e4m3(value)); break;
    }
  }

  void pack() {
    const int64_t rows = view.rows, columns = view.columns;
    const bool transposed = what.format == FormatId::gptq || what.format == FormatId::awq;
    auto code = [&](int64_t row, int64_t column) {
      return codes_[static_cast<size_t>(row * columns + column)];
    };
    auto floats = [&](const std::vector<float>& values, const char* name) {
      Raw raw;
      for (int64_t i = 0; i < rows * groups_; ++i) {
        const int64_t at = transposed ? i % rows * groups_ + i / rows : i;
        put_float(raw, values[static_cast<size_t>(at)]);
      }
      std::vector<int64_t> shape = {transposed ? groups_ : rows, transposed ? rows : groups_};
      return TensorView{name, what.scale_type, shape, keep(std::move(raw)), -1};
    };
    if (what.format != FormatId::nvfp4_gguf) view.scale = floats(scales_, "random.scale");
    if (what.act_order) {
      Raw raw(static_cast<size_t>(columns) * 4);
      for (int64_t k = 0; k < columns; ++k) {
        index_.push_back((k * 7 + 3) % columns / view.group);
        const int32_t group = static_cast<int32_t>(index_.back());
        std::memcpy(&raw[static_cast<size_t>(k) * 4], &group, 4);
      }
      view.group_index = {"random.g_idx", DType::i32, {columns}, keep(std::move(raw)), -1};
    }
    auto zero = [&](int64_t row, int64_t group) {
      return static_cast<uint32_t>(zeros_[static_cast<size_t>(row * groups_ + group)]);
    };
    const uint64_t n = static_cast<uint64_t>(rows);
    switch (what.format) {
      case FormatId::gptq: {
        view.codes = keep(pack_words(rows, columns, n, 1, code));
        view.zero_offset = 1;
        Raw raw = pack_words(groups_, rows, 1, words(rows),
                             [&](int64_t g, int64_t r) { return zero(r, g) - 1; });
        const int64_t wide = static_cast<int64_t>(words(rows));
        view.zero = {"random.qzeros", DType::i32, {groups_, wide}, keep(std::move(raw)), -1};
        return;
      }
      case FormatId::awq:
        view.codes = keep(pack_awq(columns, rows, false));
        view.zero = {"random.qzeros",
                     DType::i32,
                     {groups_, rows / 8},
                     keep(pack_awq(groups_, rows, true)),
                     -1};
        return;
      case FormatId::nvfp4_gguf: return pack_gguf();
      case FormatId::mlx_affine: view.zero = floats(zeros_, "random.biases"); break;
      case FormatId::int8_plain:
      case FormatId::int_packed:
        if (what.unpacked_zeros) {
          Raw raw;
          for (float z : zeros_) {
            raw.push_back(std::byte{static_cast<uint8_t>(static_cast<int>(z) - code_offset(view))});
          }
          view.zero = {"random.zero", DType::i8, {rows, groups_}, keep(std::move(raw)), -1};
        } else if (what.has_zeros) {
          Raw raw = pack_words(groups_, rows, static_cast<uint64_t>(groups_), 1,
                               [&](int64_t g, int64_t r) { return zero(r, g); });
          const int64_t down = static_cast<int64_t>(words(rows));
          view.zero = {"random.zero", DType::i32, {down, groups_}, keep(std::move(raw)), -1};
        }
        break;
      default: break;
    }
    if (what.format == FormatId::int8_plain) {
      Raw raw;
      for (uint8_t u : codes_) raw.push_back(std::byte{static_cast<uint8_t>(u - 128)});
      view.codes = keep(std::move(raw));
      return;
    }
    view.codes = keep(pack_words(rows, columns, 1, words(columns), code));
  }
  void pack_gguf() {
    Raw raw;
    for (int64_t row = 0; row < view.rows; ++row) {
      for (int64_t block = 0; block < view.columns; block += 64) {
        auto at = [&](int64_t column) {
          return codes_[static_cast<size_t>(row * view.columns + block + column)];
        };
        for (int64_t s = 0; s < 4; ++s)
          put_float(raw, scales_[static_cast<size_t>(row * groups_ + block / 16 + s)]);
        for (int64_t s = 0; s < 64; s += 16) {
          for (int64_t j = 0; j < 8; ++j)
            raw.push_back(std::byte{static_cast<uint8_t>(at(s + j) | at(s + j + 8) << 4)});
        }
      }
    }
    view.codes = keep(std::move(raw));
  }

  std::mt19937 random_;
  int64_t groups_ = 0;
  std::vector<uint8_t> codes_;  // in stored order of rows
  std::vector<float> scales_, zeros_;
  std::vector<int64_t> index_;
  std::vector<std::unique_ptr<Raw>> held_;
};

}  // namespace bise::test
