#include "support/op_cases.h"

#include <cmath>

#include "base/float_types.h"
#include "base/random.h"

namespace bise::test {
namespace {

// Where the float16 fields of a block lie, and the largest factor of its minimum.
struct BlockFields {
  FormatId format;
  std::vector<size_t> halves;
  size_t minimum;  // 0: none
  double largest_factor;
};
const BlockFields* fields_of(FormatId format) {
  static const std::vector<BlockFields> kFields = {
      {FormatId::q4_0, {0}, 0, 0},       {FormatId::q4_1, {0, 2}, 2, 1},    {FormatId::q5_0, {0}, 0, 0},
      {FormatId::q5_1, {0, 2}, 2, 1},    {FormatId::q8_0, {0}, 0, 0},       {FormatId::q2_k, {80, 82}, 82, 15},
      {FormatId::q3_k, {108}, 0, 0},     {FormatId::q4_k, {0, 2}, 2, 63},   {FormatId::q5_k, {0, 2}, 2, 63},
      {FormatId::q6_k, {208}, 0, 0},     {FormatId::iq4_nl, {0}, 0, 0},     {FormatId::iq4_xs, {0}, 0, 0},
  };
  for (const BlockFields& fields : kFields) {
    if (fields.format == format) return &fields;
  }
  return nullptr;
}

// Uniform in [-1, 1).
float draw(uint64_t seed, uint64_t stream, uint64_t position) {
  return static_cast<float>(2.0 * random_uniform(seed, stream, position) - 1.0);
}

template <class T>
void put(std::vector<std::byte>& bytes, size_t at, T value) {
  CHECK(at + sizeof(T) <= bytes.size());
  std::memcpy(&bytes[at], &value, sizeof(T));
}

// Numbers that are finite: any code bytes elsewhere.
void make_finite(const PartCase& part, uint64_t seed, uint64_t stream, std::vector<std::byte>& bytes) {
  const WeightFormat& format = weight_format(part.format);
  const size_t block_bytes = static_cast<size_t>(format.block_bytes);
  const BlockFields* fields = fields_of(part.format);
  for (size_t at = 0, n = 0; at < bytes.size(); at += block_bytes, ++n) {
    const float value = draw(seed, stream + 1, n);
    switch (part.format) {
      case FormatId::f32: put(bytes, at, value); break;
      case FormatId::f16: put(bytes, at, f32_to_f16(value)); break;
      case FormatId::bf16: put(bytes, at, f32_to_bf16(value)); break;
      case FormatId::fp8_e4m3:
        if ((bytes[at] & std::byte{0x7F}) == std::byte{0x7F}) bytes[at] ^= std::byte{1};
        break;
      case FormatId::mxfp4_gguf: put(bytes, at, static_cast<uint8_t>(120 + n % 7)); break;
      case FormatId::nvfp4_gguf:
        for (size_t i = 0; i < 4; ++i) put(bytes, at + i, static_cast<uint8_t>(16 + (n + i) % 9));
        break;
      default:
        for (size_t half : fields->halves) {
          // The last block of seven has a subnormal scale, every third a negative one.
          float scale = 0.002f + 0.01f * std::fabs(draw(seed, stream + 2 + half, n));
          if (n % 7 == 6) scale = 0x1p-16f * std::fabs(value);
          put(bytes, at + half, f32_to_f16(n % 3 == 1 ? -scale : scale));
        }
    }
  }
}

}  // namespace

std::vector<std::byte>& RandomWeights::random_bytes(uint64_t count, uint64_t seed, uint64_t stream) {
  auto bytes = std::make_unique<std::vector<std::byte>>(count);
  for (size_t k = 0; k < bytes->size(); k += 8) {
    const uint64_t bits = random_bits(seed, stream, k);
    std::memcpy(&(*bytes)[k], &bits, std::min<size_t>(8, bytes->size() - k));
  }
  parts_.push_back(std::move(bytes));
  return *parts_.back();
}

WeightView RandomWeights::grouped(const PartCase& part, int64_t columns, uint64_t seed, uint64_t stream) {
  const auto id = part.format;
  const bool fp4 = id == FormatId::nvfp4 || id == FormatId::mxfp4, across = id == FormatId::gptq || id == FormatId::awq;
  WeightView w;
  w.name = "grouped";
  w.format = id;
  w.rows = part.rows;
  w.columns = columns;
  w.bits = fp4 ? 4 : id == FormatId::mxfp8 || id == FormatId::int8_plain ? 8 : part.bits;
  w.group = id == FormatId::nvfp4 ? 16 : id == FormatId::mxfp4 || id == FormatId::mxfp8 ? 32 : part.group;
  if (w.group == 0) w.group = columns;
  const int64_t groups = columns / w.group;
  // Words of AWQ hold eight rows; those that are left over belong to nobody.
  auto words = [&](int64_t count) { return (count * w.bits + 31) / 32; };
  const uint64_t code_bytes = static_cast<uint64_t>(id == FormatId::awq ? columns * (part.rows + 7) / 8 * 4
                                                                        : words(columns) * part.rows * 4);
  std::vector<std::byte>& codes = random_bytes(code_bytes, seed, stream);
  if (id == FormatId::mxfp8) {
    for (std::byte& code : codes) if ((code & std::byte{0x7F}) == std::byte{0x7F}) code ^= std::byte{1};
  }
  w.codes = codes;
  codes_.push_back(&codes);
  auto scales = [&](TensorView& view, DType type, float low, float high) {
    view.name = "scales";
    view.dtype = type;
    view.shape = across ? std::vector<int64_t>{groups, part.rows} : std::vector<int64_t>{part.rows, groups};
    const size_t width = dtype_bytes(type), count = static_cast<size_t>(groups * part.rows);
    std::vector<std::byte>& bytes = random_bytes(count * width, seed, stream + 3);
    double largest = 0.0;
    for (size_t n = 0; n < count; ++n) {
      float value = low + (high - low) * std::fabs(draw(seed, stream + 5, n));
      if (n % 3 == 1) value = -value;
      if (type == DType::bf16) put(bytes, 2 * n, f32_to_bf16(value));
      else if (type == DType::f16) put(bytes, 2 * n, f32_to_f16(value));
      else if (type == DType::f32) put(bytes, 4 * n, value);
      else if (id == FormatId::nvfp4) put(bytes, n, f32_to_e4m3(value * 1e4f));
      else put(bytes, n, static_cast<uint8_t>(118 + n % 7));
      largest = std::max(largest, std::fabs(double{value}));
    }
    view.bytes = bytes;
    return largest * 1.01;
  };
  const DType type = id == FormatId::nvfp4 ? DType::f8_e4m3 : id == FormatId::mxfp4 || id == FormatId::mxfp8 ? DType::f8_e8m0 : part.scale_type;
  double minimum = scales(w.scale, type, 0.001f, 0.01f) * (1 << w.bits);
  if (id == FormatId::nvfp4) {
    w.global_scale = part.has_zero ? 1.0f / 5983.7f : 5952.0f;
    w.global_divides = !part.has_zero;
  }
  if (id == FormatId::mlx_affine) {
    minimum = scales(w.zero, part.scale_type, 0.01f, 0.3f);
  } else if (part.has_zero && !fp4) {
    w.zero.name = "zeros";
    w.zero.dtype = DType::i32;
    w.zero.shape = across ? std::vector<int64_t>{groups, words(part.rows)} : std::vector<int64_t>{words(part.rows), groups};
    w.zero.bytes = random_bytes(static_cast<uint64_t>(groups * words(part.rows) * 4), seed, stream + 7);
  } else {
    minimum = 0.0;
  }
  largest_minimum_.push_back(minimum);
  return w;
}

RandomWeights::RandomWeights(const std::vector<PartCase>& parts, int64_t columns, uint64_t seed) {
  for (size_t i = 0; i < parts.size(); ++i) {
    const PartCase& part = parts[i];
    const uint64_t stream = 1000 * (i + 1);
    const WeightFormat& format = weight_format(part.format);
    if (format.block_bytes == 0) {
      views_.push_back(grouped(part, columns, seed, stream));
      views_.back().order.interleaved_head = part.interleaved_head;
      continue;
    }
    const uint64_t row_bytes = weight_row_bytes(format, columns).value();
    std::vector<std::byte>& codes = random_bytes(row_bytes * static_cast<uint64_t>(part.rows), seed, stream);
    codes_.push_back(&codes);
    make_finite(part, seed, stream, codes);
    WeightView view = make_weight_view(part.format, part.rows, columns, codes, "part" + std::to_string(i)).value();
    view.order.interleaved_head = part.interleaved_head;
    view.activation_scale = part.activation_scale;
    if (part.format == FormatId::fp8_e4m3) {
      constexpr int64_t kScaleBlock = 128;
      const int64_t scale_rows = part.scales == Fp8Scales::tensor ? 1
                                 : part.scales == Fp8Scales::row  ? part.rows
                                                                  : (part.rows + kScaleBlock - 1) / kScaleBlock;
      const int64_t scale_columns = part.scales == Fp8Scales::block ? (columns + kScaleBlock - 1) / kScaleBlock : 1;
      view.scale.shape = {scale_rows, scale_columns};
      view.scale.dtype = part.scales == Fp8Scales::row ? DType::bf16 : DType::f32;
      if (part.scales == Fp8Scales::block) view.scale_block_rows = view.scale_block_columns = kScaleBlock;
      const size_t width = dtype_bytes(view.scale.dtype), count = static_cast<size_t>(scale_rows * scale_columns);
      std::vector<std::byte>& scales = random_bytes(count * width, seed, stream + 3);
      for (size_t n = 0; n < count; ++n) {
        const float scale = 0.001f + 0.01f * std::fabs(draw(seed, stream + 9, n));
        if (width == 2) put(scales, 2 * n, f32_to_bf16(scale));
        else put(scales, 4 * n, scale);
      }
      view.scale.bytes = scales;
    }
    double minimum = 0.0;
    const BlockFields* fields = fields_of(part.format);
    if (fields != nullptr && fields->minimum != 0) {
      for (size_t at = 0; at < codes.size(); at += static_cast<size_t>(format.block_bytes)) {
        minimum = std::max(minimum, fields->largest_factor *
                                        std::fabs(double{f16_to_f32(load_le<uint16_t>(&codes[at + fields->minimum]))}));
      }
    }
    views_.push_back(std::move(view));
    largest_minimum_.push_back(minimum);
  }
}

namespace {

// Every width, kind of group, of scale and of zero point, once.
void add_grouped(FormatId id, int64_t rows, std::vector<PartCase>& parts) {
  auto add = [&](int32_t bits, int64_t group, DType scale, bool has_zero) {
    PartCase part;
    part.format = id;
    part.rows = rows;
    part.bits = bits;
    part.group = group;
    part.scale_type = scale;
    part.has_zero = has_zero;
    parts.push_back(part);
  };
  switch (id) {
    case FormatId::int_packed:
      for (int32_t bits = 1; bits <= 8; ++bits) {
        add(bits, bits % 2 == 0 ? 128 : 32, DType::bf16, false);
        add(bits, bits % 3 == 0 ? 0 : 64, DType::f16, true);
      }
      add(4, 0, DType::f32, false);
      add(4, 16, DType::bf16, true);  // no tile: half a block
      return;
    case FormatId::mlx_affine:
      for (int32_t bits : {2, 3, 4, 5, 6, 8}) add(bits, 32 << bits % 3, bits == 6 ? DType::f16 : DType::bf16, false);
      return;
    case FormatId::gptq:
      for (int32_t bits : {2, 3, 4, 8}) add(bits, bits == 3 ? 0 : 32, DType::f16, bits != 8);
      return;
    case FormatId::awq: return add(4, 128, DType::f16, true);
    case FormatId::nvfp4:
      add(4, 16, DType::f8_e4m3, false);
      add(4, 16, DType::f8_e4m3, true);
      return;
    default: add(8, 32, DType::bf16, false);
  }
}

}  // namespace

std::vector<PartCase> every_format(int64_t rows) {
  std::vector<PartCase> parts;
  for (const WeightFormat& format : weight_formats()) {
    if (format.block_bytes == 0) {
      add_grouped(format.id, rows, parts);
      continue;
    }
    parts.push_back({format.id, rows});
    if (format.id != FormatId::fp8_e4m3) continue;
    parts.push_back({format.id, rows, Fp8Scales::row});
    parts.push_back({format.id, rows, Fp8Scales::block});
  }
  return parts;
}

std::string part_name(const PartCase& part) {
  std::string name(weight_format(part.format).name);
  if (part.format == FormatId::fp8_e4m3) {
    name += part.scales == Fp8Scales::tensor ? "/tensor" : part.scales == Fp8Scales::row ? "/row" : "/block";
  }
  if (weight_format(part.format).block_bytes == 0) {
    name += "/" + std::to_string(part.bits) + " bits g" + std::to_string(part.group) + (part.has_zero ? " zero" : "") +
            " " + std::string(dtype_name(part.scale_type));
  }
  if (part.interleaved_head != 0) name += "/interleaved " + std::to_string(part.interleaved_head);
  return name;
}

std::string op_name(Op op) {
  static const char* const kNames[] = {"matmul", "embed", "rms_norm", "rope", "attention", "attention_full",
                                       "gated_activation", "activation", "add_bias", "gather_rows",
                                       "scatter_rows", "unfold_patches"};
  return kNames[static_cast<size_t>(op)];
}

std::string case_name(const OpCase& c) {
  std::string name = op_name(c.op);
  name += " " + std::to_string(c.tokens) + " x " + std::to_string(c.columns);
  for (const PartCase& part : c.parts) name += ", " + part_name(part) + " " + std::to_string(part.rows);
  if (c.accumulate) name += ", accumulated";
  if (c.op == Op::gated_activation || c.op == Op::activation) {
    name += c.activation == Activation::silu ? ", silu" : c.activation == Activation::gelu_erf ? ", gelu_erf" : ", gelu_tanh";
  }
  if (c.num_heads != 0) {
    name += ", heads " + std::to_string(c.num_heads) + "/" + std::to_string(c.num_kv_heads) + " x " +
            std::to_string(c.head_dim) + ", window " + std::to_string(c.sliding_window);
    if (c.op == Op::attention) name += std::string(", ") + kv_type_name(c.kv);
  }
  for (const SequenceCase& s : c.sequences) {
    name += ", " + std::to_string(s.num_rows) + " of " + std::to_string(s.num_tokens);
  }
  return name;
}

namespace {

void add_products(std::vector<OpCase>& cases) {
  constexpr int64_t kRows[] = {16, 1, 17, 33, 15}, kTokens[] = {1, 5, 2, 33, 3, 4, 8, 12};
  size_t turn = 0;
  for (const PartCase& part : every_format(0)) {
    const int32_t block = weight_format(part.format).block_elements;
    std::vector<int64_t> columns = weight_format(part.format).block_bytes == 0
                                       ? std::vector<int64_t>{128, 384, 12288}
                                   : block == 1    ? std::vector<int64_t>{1, 2, 15, 16, 17, 129, 576, 12288}
                                   : block == 32 ? std::vector<int64_t>{32, 96, 576, 1536, 12288}
                                                 : std::vector<int64_t>{256, 768, 1536, 12288};
    for (int64_t k : columns) {
      for (int i = 0; i < (k > 2000 ? 1 : 4); ++i, ++turn) {
        PartCase one = part;
        one.rows = kRows[turn % 5];
        cases.push_back({.op = Op::matmul, .tokens = kTokens[turn % 8], .columns = k, .parts = {one}, .accumulate = turn % 2 == 1});
      }
    }
    PartCase interleaved = part;  // heads of 16, and of 6: half a head is odd
    interleaved.rows = 48;
    interleaved.interleaved_head = 16;
    cases.push_back({.op = Op::matmul, .tokens = 3, .columns = 256, .parts = {interleaved}});
    interleaved.interleaved_head = 6;
    PartCase straight = part;
    straight.rows = 7;
    cases.push_back({.op = Op::matmul, .tokens = 2, .columns = 256, .parts = {interleaved, straight}});
    cases.push_back({.op = Op::embed, .tokens = 41, .columns = 768, .parts = {interleaved, straight}});
    // Beside an FP8 matrix with a scale of its own, and beside another format.
    cases.push_back({.op = Op::matmul, .tokens = 5, .columns = 512,
                     .parts = {straight, {FormatId::fp8_e4m3, 9, Fp8Scales::tensor}, {FormatId::fp8_e4m3, 20, Fp8Scales::row}, straight}});
    cases.push_back({.op = Op::matmul, .tokens = 4, .columns = 512,
                     .parts = {{FormatId::q6_k, 18}, interleaved, {FormatId::q4_k, 1}, straight}, .accumulate = true});
  }
}

void add_attention(std::vector<OpCase>& cases) {
  struct Heads {
    int32_t q, kv, dim;
  };
  size_t turn = 0;
  for (Heads h : {Heads{1, 1, 1}, Heads{2, 1, 16}, Heads{6, 2, 36}, Heads{9, 3, 64}, Heads{4, 1, 104}, Heads{24, 2, 128}}) {
    for (int32_t window : {0, 1, 20, 32, 33}) {
      for (KvDType kv : {KvDType::bf16, KvDType::f16, KvDType::f32, KvDType::fp8, KvDType::int8, KvDType::int4}) {
        if (h.dim == 128 && window % 2 == 0 && window != 0) continue;
        const int32_t contexts[] = {1, 31, 32, 33, 100};
        std::vector<SequenceCase> sequences;
        for (int32_t i = 0; i < 3; ++i, ++turn) {
          const int32_t n = contexts[turn % 5], rows[] = {1, n, std::min(n, 17), (n + 1) / 2};
          sequences.push_back({i, n, rows[turn % 4]});
        }
        cases.push_back({.op = Op::attention, .num_heads = h.q, .num_kv_heads = h.kv, .head_dim = h.dim,
                         .sliding_window = window, .kv = kv, .sequences = sequences});
      }
    }
    cases.push_back({.op = Op::attention_full, .num_heads = h.q, .num_kv_heads = h.q, .head_dim = h.dim,
                     .sequences = {{0, 0, 1}, {0, 0, 33}, {0, 0, 16}, {0, 0, 70}}});
  }
  // Longer than a segment of the online softmax, with windows that begin in one before.
  for (KvDType kv : {KvDType::bf16, KvDType::f32, KvDType::fp8, KvDType::int8, KvDType::int4}) {
    for (int32_t window : {0, 1030}) {
      cases.push_back({.op = Op::attention, .num_heads = 3, .num_kv_heads = 1, .head_dim = 16, .sliding_window = window,
                       .kv = kv, .sequences = {{0, 2100, 17}, {1, 1025, 3}, {2, 1024, 1}}});
    }
  }
  cases.push_back({.op = Op::attention_full, .num_heads = 2, .num_kv_heads = 2, .head_dim = 20,
                   .sequences = {{0, 0, 1100}, {0, 0, 5}}});
  for (OpCase& c : cases) {
    if (c.op != Op::attention && c.op != Op::attention_full) continue;
    c.tokens = 0;
    for (const SequenceCase& s : c.sequences) c.tokens += s.num_rows;
    c.columns = int64_t{c.num_heads + 2 * c.num_kv_heads} * c.head_dim;
  }
}

}  // namespace

std::vector<OpCase> op_cases() {
  std::vector<OpCase> cases;
  add_products(cases);
  for (int64_t k : {1, 15, 16, 17, 63, 64, 65, 576, 12288}) {
    cases.push_back({.op = Op::rms_norm, .tokens = 3, .columns = k});
    cases.push_back({.op = Op::add_bias, .tokens = 2, .columns = k});
    cases.push_back({.op = Op::gather_rows, .tokens = 5, .columns = k});
    cases.push_back({.op = Op::scatter_rows, .tokens = 5, .columns = k});
    for (Activation act : {Activation::silu, Activation::gelu_erf, Activation::gelu_tanh}) {
      cases.push_back({.op = Op::activation, .tokens = 3, .columns = k, .activation = act});
      cases.push_back({.op = Op::gated_activation, .tokens = 3, .columns = 2 * k, .activation = act});
    }
  }
  for (int32_t dim : {2, 16, 36, 64, 104, 128}) {
    cases.push_back({.op = Op::rope, .tokens = 7, .columns = int64_t{5} * dim, .num_heads = 3, .head_dim = dim});
  }
  add_attention(cases);
  cases.push_back({.op = Op::unfold_patches, .tokens = 4, .columns = 1, .grid_rows = 2, .merge = 2});
  cases.push_back({.op = Op::unfold_patches, .tokens = 24, .columns = 17, .grid_rows = 4, .merge = 2});
  cases.push_back({.op = Op::unfold_patches, .tokens = 54, .columns = 64, .grid_rows = 6, .merge = 3});
  return cases;
}

}  // namespace bise::test
