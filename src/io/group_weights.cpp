// Matrices whose codes share scales in groups: which tensors they are made of, and whether these
// fit together. docs/FORMATS.md draws the layouts.
#include <algorithm>
#include <cmath>

#include "base/float_types.h"
#include "io/quant_parts.h"
#include "tensor/group_codes.h"
#include "tensor/weight_format.h"

namespace bise {
namespace {

constexpr int64_t kMaxSide = int64_t{1} << 40;  // products with bits stay far from overflow

int64_t up(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

Result<void> expect_matrix(const TensorView& tensor) {
  if (tensor.shape.size() != 2) return wrong_shape(tensor, "a matrix");
  for (int64_t size : tensor.shape) {
    if (size < 1 || size > kMaxSide) return wrong_shape(tensor, "a matrix with elements");
  }
  return {};
}
Result<void> expect_shape(const TensorView& tensor, std::vector<int64_t> shape,
                          const std::string& why) {
  if (tensor.shape == shape) return {};
  return wrong_shape(tensor, shape_text(shape) + " (" + why + ")");
}
Result<void> expect_dtype(const TensorView& tensor, std::initializer_list<DType> types) {
  std::string names;
  for (DType type : types) {
    if (tensor.dtype == type) return {};
    names += (names.empty() ? "" : " or ") + std::string(dtype_name(type));
  }
  return wrong_dtype(tensor, names);
}
Result<void> expect_float_scale(const TensorView& scale) {
  return expect_dtype(scale, {DType::bf16, DType::f16, DType::f32});
}

std::string groups_text(int64_t group) {
  if (group == kWholeRow) return "one scale per row";
  return group == 0 ? "an unsaid group size" : "groups of " + std::to_string(group);
}
std::string params_text(const QuantParams& p) {
  return p.place + " says " + (p.bits == 0 ? "no bits" : std::to_string(p.bits) + " bits") + ", " +
         groups_text(p.group);
}
int64_t count_groups(int64_t group, int64_t columns) {
  return group == kWholeRow || group == 0 ? 1 : up(columns, group);
}

// The entry of the config that holds for a module: its own, else the one of the others that fits
// the tensors. `found` says what they are.
template <class Fits>
Result<QuantParams> choose(const ModuleTensors& m, const TensorView& codes,
                           const std::string& found, Fits fits) {
  auto fault = [&](const std::string& text) {
    return Error(ErrorCode::corrupt, "tensor " + codes.name + ": found " + found + ", but " + text);
  };
  std::string module = m.stem.substr(0, m.stem.empty() ? 0 : m.stem.size() - 1);
  auto own = m.scheme.modules.find(module_key(module));
  if (own != m.scheme.modules.end()) {
    if (fits(own->second)) return own->second;
    return fault(params_text(own->second));
  }
  const QuantParams* chosen = nullptr;
  for (const QuantParams& p : m.scheme.any) {
    if (!fits(p)) continue;
    if (chosen != nullptr && (p.bits != chosen->bits || p.group != chosen->group)) {
      return fault("both " + params_text(*chosen) + " and " + params_text(p) + " fit");
    }
    if (chosen == nullptr) chosen = &p;
  }
  if (chosen != nullptr) return *chosen;
  if (m.scheme.any.empty()) return fault("the configuration does not say how it is quantised");
  return fault(params_text(m.scheme.any.front()));
}

WeightView begin_view(const ModuleTensors& m, FormatId format, const TensorView& codes,
                      int64_t rows, int64_t columns) {
  WeightView view;
  view.name = m.name;
  view.format = format;
  view.rows = rows;
  view.columns = columns;
  view.codes = codes.bytes;
  return view;
}
void set_group(WeightView& view, const QuantParams& p) {
  view.bits = p.bits;
  view.group =
      p.group == kWholeRow || p.group == 0 ? view.columns : std::min(p.group, view.columns);
}

Result<void> attach_group_index(const ModuleTensors& m, const char* name, WeightView& view) {
  const TensorView* index = m.part({name});
  if (index == nullptr) return {};
  TRY(expect_dtype(*index, {DType::i32}));
  TRY(expect_shape(*index, {view.columns}, "the group of each column"));
  view.group_index = *index;
  return {};
}

// A scale of the whole matrix: one number that is finite and above zero (a factor may be zero).
Result<void> attach_global_scale(const TensorView& scale, bool divides, WeightView& view) {
  TRY(expect_dtype(scale, {DType::f32}));
  if (scale.num_elements() != 1) return wrong_shape(scale, "one value");
  const float value = float_at(scale, 0);
  const float largest = divides ? 448.0f / value : 448.0f * value;
  if (!std::isfinite(value) || value < 0.0f || !std::isfinite(largest)) {
    return Error(ErrorCode::corrupt, "tensor " + scale.name + ": found " + std::to_string(value) +
                                         ", expected a finite scale above 0");
  }
  view.global_scale = value;
  view.global_divides = divides;
  return {};
}

}  // namespace

Result<WeightView> assemble_int_packed(const ModuleTensors& m, const TensorView& packed) {
  TRY(expect_dtype(packed, {DType::i32}));
  TRY(expect_matrix(packed));
  const TensorView* scale = m.part({"weight_scale"});
  if (scale == nullptr) return missing_part(m, "weight_scale");
  TRY(expect_float_scale(*scale));
  const int64_t rows = packed.shape[0], words = packed.shape[1];
  int64_t columns = 0;  // not known
  if (const TensorView* shape = m.part({"weight_shape"})) {
    TRY(expect_dtype(*shape, {DType::i64}));
    TRY(expect_shape(*shape, {2}, "rows and columns"));
    const int64_t stated = load_le<int64_t>(shape->bytes.data());
    columns = load_le<int64_t>(shape->bytes.data() + 8);
    if (stated != rows || columns < 1 || columns > kMaxSide) {
      return Error(ErrorCode::corrupt, "tensor " + shape->name + ": says " +
                                           shape_text({stated, columns}) + ", but " + packed.name +
                                           " has " + std::to_string(rows) + " rows of words");
    }
  }
  const bool one_scale = scale->num_elements() == 1;
  const int64_t groups = scale->shape.size() == 2 ? scale->shape[1] : 1;
  auto columns_of = [&](const QuantParams& p) {
    return columns != 0 ? columns : words * 32 / p.bits;
  };
  auto is_dense = [&](const QuantParams& p) { return up(columns_of(p) * p.bits, 32) == words; };
  QuantParams params = TRY(
      choose(m, packed,
             std::to_string(words) + " words and " + std::to_string(groups) + " scales per row" +
                 (columns == 0 ? "" : " of " + std::to_string(columns) + " columns"),
             [&](const QuantParams& p) {
               if (p.is_float || p.bits < 1 || p.bits > 8) return false;
               const bool fits = is_dense(p) || up(columns_of(p), 32 / p.bits) == words;
               return fits && count_groups(p.group, columns_of(p)) == groups;
             }));
  WeightView view = begin_view(m, FormatId::int_packed, packed, rows, columns_of(params));
  set_group(view, params);
  if (!is_dense(params)) view.codes_per_word = 32 / params.bits;
  if (!one_scale) {
    const bool flat = groups == 1 && scale->shape == std::vector<int64_t>{rows};
    if (!flat) TRY(expect_shape(*scale, {rows, groups}, "one scale per row and group"));
  } else if (groups != 1) {
    return wrong_shape(*scale, "one scale per row and group");
  }
  view.scale = *scale;
  if (const TensorView* zero = m.part({"weight_zero_point"})) {
    TRY(expect_dtype(*zero, {DType::i32, DType::i8}));
    if (zero->dtype == DType::i8) {
      if (zero->num_elements() != 1)
        TRY(expect_shape(*zero, {rows, groups}, "one per row and group"));
    } else {
      const int64_t per_word = view.codes_per_word;
      const int64_t down = per_word == 0 ? up(rows * view.bits, 32) : up(rows, per_word);
      TRY(expect_shape(*zero, {down, groups}, "zero points packed down the rows"));
    }
    view.zero = *zero;
  }
  TRY(attach_group_index(m, "weight_g_idx", view));
  return view;
}

Result<WeightView> assemble_int8(const ModuleTensors& m, const TensorView& codes) {
  TRY(expect_matrix(codes));
  const TensorView* scale = m.part({"weight_scale"});
  if (scale == nullptr) return missing_part(m, "weight_scale");
  TRY(expect_float_scale(*scale));
  const int64_t rows = codes.shape[0], columns = codes.shape[1];
  const int64_t groups = scale->shape.size() == 2 ? scale->shape[1] : 1;
  QuantParams params =
      TRY(choose(m, codes, "bytes and " + std::to_string(groups) + " scales per row",
                 [&](const QuantParams& p) {
                   return !p.is_float && p.bits >= 1 && p.bits <= 8 &&
                          count_groups(p.group, columns) == groups;
                 }));
  WeightView view = begin_view(m, FormatId::int8_plain, codes, rows, columns);
  set_group(view, params);
  view.bits = 8;  // a byte each, however few of its values are in use
  const bool flat = groups == 1 && scale->shape == std::vector<int64_t>{rows};
  if (scale->num_elements() != 1 && !flat) {
    TRY(expect_shape(*scale, {rows, groups}, "one scale per row and group"));
  }
  view.scale = *scale;
  if (const TensorView* zero = m.part({"weight_zero_point"})) {
    TRY(expect_dtype(*zero, {DType::i8}));
    if (zero->num_elements() != 1) TRY(expect_shape(*zero, scale->shape, "one beside each scale"));
    view.zero = *zero;
  }
  return view;
}

Result<WeightView> assemble_qweight(const ModuleTensors& m, const TensorView& words) {
  TRY(expect_dtype(words, {DType::i32}));
  TRY(expect_matrix(words));
  const TensorView* scale = m.part({"scales"});
  const TensorView* zero = m.part({"qzeros"});
  if (scale == nullptr) return missing_part(m, "scales");
  if (zero == nullptr) return missing_part(m, "qzeros");
  TRY(expect_float_scale(*scale));
  TRY(expect_dtype(*zero, {DType::i32}));
  TRY(expect_matrix(*scale));
  TRY(expect_matrix(*zero));
  // GPTQ packs along the columns, AWQ along the rows: only then is qweight as wide as qzeros.
  const int64_t rows = scale->shape[1], groups = scale->shape[0];
  const bool awq = words.shape[1] != rows && words.shape[1] * 8 == rows;
  const int64_t bits = awq ? 4 : up(zero->shape[1] * 32, rows);
  const TensorView* index = awq ? nullptr : m.part({"g_idx"});
  int64_t columns = awq ? words.shape[0] : bits == 0 ? 0 : words.shape[0] * 32 / bits;
  if (index != nullptr && index->shape.size() == 1) columns = index->shape[0];
  TRY(expect_shape(*zero, {groups, awq ? rows / 8 : up(rows * bits, 32)},
                   "zero points along the rows"));
  if (bits < 1 || bits > 8 || columns < 1 ||
      (!awq && (words.shape[1] != rows || up(columns * bits, 32) != words.shape[0]))) {
    return wrong_shape(words,
                       "words of " + std::to_string(rows) + " rows (by " + scale->name + ")");
  }
  QuantParams params =
      TRY(choose(m, words,
                 std::to_string(bits) + "-bit codes of " + std::to_string(columns) +
                     " columns and " + std::to_string(groups) + " groups",
                 [&](const QuantParams& p) {
                   return !p.is_float && p.bits == bits && count_groups(p.group, columns) == groups;
                 }));
  WeightView view = begin_view(m, awq ? FormatId::awq : FormatId::gptq, words, rows, columns);
  set_group(view, params);
  view.scale = *scale;
  view.zero = *zero;
  view.zero_offset = awq ? 0 : m.scheme.gptq_zero_offset;
  if (!awq) TRY(attach_group_index(m, "g_idx", view));
  return view;
}

Result<WeightView> assemble_mlx(const ModuleTensors& m, const TensorView& words) {
  TRY(expect_matrix(words));
  const TensorView* scale = m.part({"scales"});
  if (scale == nullptr) return missing_part(m, "scales");
  TRY(expect_matrix(*scale));
  const int64_t rows = words.shape[0], groups = scale->shape[1];
  auto columns_of = [&](const QuantParams& p) { return words.shape[1] * 32 / p.bits; };
  QuantParams params = TRY(choose(
      m, words,
      std::to_string(words.shape[1]) + " words and " + std::to_string(groups) + " scales per row",
      [&](const QuantParams& p) {
        if (p.bits < 1 || p.bits > 8 || words.shape[1] * 32 % p.bits != 0) return false;
        // A group of null means what the shapes say.
        if (p.group == 0) return columns_of(p) % groups == 0;
        return columns_of(p) == groups * p.group;
      }));
  const int64_t columns = columns_of(params);
  params.group = columns / groups;
  TRY(expect_shape(*scale, {rows, groups}, "one scale per row and group"));
  const std::string& mode = params.mode;
  if (mode == "affine") {
    TRY(expect_float_scale(*scale));
    const TensorView* bias = m.part({"biases"});
    if (bias == nullptr) return missing_part(m, "biases");
    TRY(expect_dtype(*bias, {scale->dtype}));
    TRY(expect_shape(*bias, {rows, groups}, "one bias beside each scale"));
    WeightView view = begin_view(m, FormatId::mlx_affine, words, rows, columns);
    set_group(view, params);
    view.scale = *scale;
    view.zero = *bias;
    return view;
  }
  const bool nvfp4 = mode == "nvfp4";
  TRY(expect_dtype(*scale, {DType::u8, nvfp4 ? DType::f8_e4m3 : DType::f8_e8m0}));
  if (params.bits != (mode == "mxfp8" ? 8 : 4) || params.group != (nvfp4 ? 16 : 32)) {
    return Error(ErrorCode::corrupt, "tensor " + words.name + ": found " +
                                         std::to_string(params.bits) + "-bit codes in groups of " +
                                         std::to_string(params.group) + ", which is not " + mode);
  }
  const FormatId id = nvfp4 ? FormatId::nvfp4 : mode == "mxfp8" ? FormatId::mxfp8 : FormatId::mxfp4;
  WeightView view = begin_view(m, id, words, rows, columns);
  set_group(view, params);
  view.scale = *scale;
  return view;
}

Result<WeightView> assemble_fp4(const ModuleTensors& m, const TensorView& packed) {
  TRY(expect_matrix(packed));
  const TensorView* scale = m.part({"weight_scale"});
  if (scale == nullptr) return missing_part(m, "weight_scale");
  TRY(expect_dtype(*scale, {DType::f8_e4m3, DType::u8, DType::f8_e8m0}));
  const bool nvfp4 = scale->dtype == DType::f8_e4m3;
  const int64_t group = nvfp4 ? 16 : 32;
  const int64_t rows = packed.shape[0], columns = 2 * packed.shape[1];
  if (columns % group != 0) {
    return wrong_shape(packed, "whole groups of " + std::to_string(group) + " codes, two per byte");
  }
  TRY(expect_shape(*scale, {rows, columns / group}, "one scale per row and group"));
  WeightView view = begin_view(m, nvfp4 ? FormatId::nvfp4 : FormatId::mxfp4, packed, rows, columns);
  view.bits = 4;
  view.group = group;
  view.scale = *scale;
  if (!nvfp4) return view;
  // compressed-tensors divides by the scale of the matrix, ModelOpt multiplies with it: the names
  // differ, and a config that contradicts them is not trusted.
  const TensorView* divisor = m.part({"weight_global_scale"});
  const TensorView* factor = m.part({"weight_scale_2"});
  const bool modelopt = m.scheme.method == "modelopt";
  if (divisor != nullptr && factor != nullptr) {
    return Error(ErrorCode::corrupt, "tensor " + factor->name +
                                         ": beside weight_global_scale, "
                                         "which means its inverse; expected one of them");
  }
  const TensorView* global = modelopt ? factor : divisor;
  if (m.scheme.method.empty() && factor != nullptr) global = factor;
  if (global == nullptr) {
    return missing_part(m, modelopt ? "weight_scale_2 (quant_method modelopt)"
                                    : "weight_global_scale (quant_method " + m.scheme.method + ")");
  }
  TRY(attach_global_scale(*global, global == divisor, view));
  return view;
}

Result<WeightView> assemble_mxfp8(const ModuleTensors& m, const TensorView& codes,
                                  const TensorView& scale) {
  TRY(expect_matrix(codes));
  const int64_t rows = codes.shape[0], columns = codes.shape[1];
  if (columns % 32 != 0) return wrong_shape(codes, "whole groups of 32 columns");
  TRY(expect_shape(scale, {rows, columns / 32}, "one scale per row and group of 32"));
  WeightView view = begin_view(m, FormatId::mxfp8, codes, rows, columns);
  view.bits = 8;
  view.group = 32;
  view.scale = scale;
  return view;
}

Result<void> attach_gguf_scale(const ModuleTensors& m, WeightView& view) {
  const TensorView* scale = m.part({"scale"});
  if (scale == nullptr) return {};
  return attach_global_scale(*scale, false, view);
}

Result<void> check_weight(WeightView& w) {
  if (!has_group_codes(w.format)) return {};
  if (!w.group_index.shape.empty()) {
    bool unused = false, trivial = true;
    for (int64_t k = 0; k < w.columns; ++k) {
      const int64_t group = group_of(w, k);
      unused = unused || group == -1;  // compressed-tensors' mark of "no group order"
      trivial = trivial && group == k / w.group;
    }
    if (unused || trivial) w.group_index = TensorView();
  }
  return check_group_parts(w);
}

}  // namespace bise
