#include "backend/cpu/tile_packing.h"

#include <cstring>

#include "backend/cpu/cpu_features.h"
#include "backend/cpu/tile_decode.h"
#include "base/float_types.h"
#include "tensor/decoders.h"
#include "tensor/group_codes.h"
#include "tensor/weight_format.h"

namespace bise {

uint64_t TileFormat::tile_bytes(int64_t columns) const {
  return static_cast<uint64_t>(integer ? bise::tile_bytes(ints, columns) : bise::tile_bytes(floats, columns));
}

namespace {

// Integer codes whose groups are whole blocks.
std::optional<TileFormat> tile_format_of_groups(const WeightView& w) {
  const bool row_scale = w.group >= w.columns;
  if (w.columns % kBlock != 0 || (!row_scale && w.group % kBlock != 0)) return std::nullopt;
  for (int64_t k = 0; !w.group_index.shape.empty() && k < w.columns; ++k) {
    if (group_of(w, k) != k / w.group) return std::nullopt;  // columns out of order
  }
  constexpr IntCodes kCodes[] = {IntCodes::u2, IntCodes::u2, IntCodes::u3, IntCodes::u4,
                                 IntCodes::u5, IntCodes::u6, IntCodes::s8, IntCodes::s8};
  IntTile t;
  t.codes = kCodes[w.bits - 1];
  const ScaleType scale = scale_type(w);
  t.scale = scale == ScaleType::f16 ? TileScale::f16 : scale == ScaleType::bf16 ? TileScale::bf16 : TileScale::f32;
  t.group_blocks = (row_scale ? w.columns : w.group) / kBlock;
  // Codes of signed bytes are stored 2^(bits - 1) below their value.
  const int32_t low = t.codes == IntCodes::s8 ? code_offset(w) : 0;
  switch (zero_kind(w)) {
    case ZeroKind::none: t.offset = code_offset(w) - low; break;
    case ZeroKind::point:
      t.minimum = Minimum::zero_point;
      t.offset = -low;
      break;
    case ZeroKind::bias:
      t.minimum = Minimum::value;
      t.offset = -low;
      break;
  }
  return TileFormat{true, {}, t};
}

}  // namespace

std::optional<TileFormat> tile_format_of(const WeightView& w) {
  using enum BlockScales;
  auto of_float = [](FloatCodes codes) { return TileFormat{false, {codes}, {}}; };
  auto of_int = [](IntTile tile) { return TileFormat{true, {}, tile}; };
  constexpr TileScale kF16 = TileScale::f16;
  constexpr Minimum kNone = Minimum::none, kValue = Minimum::value;
  switch (w.format) {
    case FormatId::f32: return of_float(FloatCodes::f32);
    case FormatId::f16: return of_float(FloatCodes::f16);
    case FormatId::bf16: return of_float(FloatCodes::bf16);
    case FormatId::fp8_e4m3: {
      TileFormat format = of_float(FloatCodes::e4m3);
      if (w.scale_block_rows == 0) return format;
      if (w.scale_block_columns % 2 != 0) return std::nullopt;
      format.floats.group_columns = w.scale_block_columns;
      format.floats.scale = w.scale.dtype == DType::bf16  ? TileScale::bf16
                            : w.scale.dtype == DType::f16 ? TileScale::f16
                                                          : TileScale::f32;
      return format;
    }
    case FormatId::q4_0: return of_int({IntCodes::u4, none, kF16, kNone, 8, 1});
    case FormatId::q4_1: return of_int({IntCodes::u4, none, kF16, kValue, 0, 1});
    case FormatId::q5_0: return of_int({IntCodes::u5, none, kF16, kNone, 16, 1});
    case FormatId::q5_1: return of_int({IntCodes::u5, none, kF16, kValue, 0, 1});
    case FormatId::q8_0: return of_int({IntCodes::s8, none, kF16, kNone, 0, 1});
    case FormatId::q2_k: return of_int({IntCodes::u2, u4_halves, kF16, kValue, 0, 8});
    case FormatId::q3_k: return of_int({IntCodes::u3, i8_halves, kF16, kNone, 4, 8});
    case FormatId::q4_k: return of_int({IntCodes::u4, u8_min, kF16, kValue, 0, 8});
    case FormatId::q5_k: return of_int({IntCodes::u5, u8_min, kF16, kValue, 0, 8});
    case FormatId::q6_k: return of_int({IntCodes::u6, i8_halves, kF16, kNone, 32, 8});
    case FormatId::iq4_nl: return of_int({IntCodes::iq4, none, kF16, kNone, 0, 1});
    case FormatId::iq4_xs: return of_int({IntCodes::iq4, i8, kF16, kNone, 0, 8});
    case FormatId::mxfp4_gguf: return of_int({IntCodes::e2m1, none, TileScale::e8m0, kNone, 12, 1});
    case FormatId::mxfp4:
      if (w.columns % kBlock != 0) return std::nullopt;
      return of_int({IntCodes::e2m1, none, TileScale::e8m0, kNone, 12, 1});
    case FormatId::nvfp4:
    case FormatId::nvfp4_gguf:
      if (w.columns % kBlock != 0) return std::nullopt;
      return of_int({IntCodes::e2m1, e4m3_halves, TileScale::none, kNone, 12, 1});
    case FormatId::mxfp8: return TileFormat{false, {FloatCodes::e4m3, TileScale::e8m0, w.group}, {}};
    case FormatId::int_packed:
    case FormatId::int8_plain:
    case FormatId::gptq:
    case FormatId::awq:
    case FormatId::mlx_affine: return tile_format_of_groups(w);
  }
  return std::nullopt;
}

// The kernels take e4m3 scales for 2^-8 of their value.
RowFactor row_factor(const WeightView& w, int64_t row) {
  switch (w.format) {
    case FormatId::fp8_e4m3: return {w.scale_block_rows == 0 ? fp8_scale(w, row, 0) : 1.0f, 1.0f};
    case FormatId::nvfp4:
    case FormatId::nvfp4_gguf:
      return w.global_divides ? RowFactor{256.0f, w.global_scale} : RowFactor{256.0f * w.global_scale, 1.0f};
    default: return {};
  }
}

namespace {

// --- Packing: what the rows are made of, for pack_kernels.h.

PackSource source_of(const WeightView& w) {
  switch (w.format) {
    case FormatId::f32:
    case FormatId::f16:
    case FormatId::bf16:
    case FormatId::fp8_e4m3:
    case FormatId::mxfp8: return PackSource::columns;
    case FormatId::q4_0:
    case FormatId::iq4_nl: return PackSource::q4_0;
    case FormatId::q4_1: return PackSource::q4_1;
    case FormatId::q5_0: return PackSource::q5_0;
    case FormatId::q5_1: return PackSource::q5_1;
    case FormatId::q8_0: return PackSource::q8_0;
    case FormatId::q2_k: return PackSource::q2_k;
    case FormatId::q3_k: return PackSource::q3_k;
    case FormatId::q4_k: return PackSource::q4_k;
    case FormatId::q5_k: return PackSource::q5_k;
    case FormatId::q6_k: return PackSource::q6_k;
    case FormatId::iq4_xs: return PackSource::iq4_xs;
    case FormatId::mxfp4_gguf: return PackSource::mxfp4;
    case FormatId::nvfp4_gguf: return PackSource::nvfp4;
    case FormatId::int8_plain:
    case FormatId::awq: return PackSource::bytes;
    case FormatId::int_packed:
    case FormatId::gptq:
    case FormatId::mlx_affine:
    case FormatId::nvfp4:
    case FormatId::mxfp4: break;
  }
  return w.codes_per_word == 0 ? PackSource::words : PackSource::bytes;
}

const uint8_t* bytes_of(Bytes bytes) { return reinterpret_cast<const uint8_t*>(bytes.data()); }

// Scales and zero points of float formats that have them by blocks of the matrix.
const uint8_t* block_scales_of(const WeightView& w, int64_t row) {
  const int64_t per_row = (w.columns + w.scale_block_columns - 1) / w.scale_block_columns;
  return bytes_of(w.scale.bytes) + w.stored_row(row) / w.scale_block_rows * per_row * dtype_bytes(w.scale.dtype);
}

// Per row, what does not lie in the file as packing wants it: codes of formats that mix rows, zero points.
struct RowScratch {
  uint8_t codes[kPackColumns];
  uint8_t zeros[kPackColumns / kBlock];
};

// The rows of a job differ in their pointers alone.
PackJob job_of(const WeightView& w, const TileFormat& format, int64_t first, int64_t end, uint8_t* tile) {
  PackJob job{};
  job.source = source_of(w);
  job.floats = format.floats;
  job.ints = format.ints;
  job.first = first;
  job.end = end;
  job.tile = tile;
  job.bits = code_kind(w) == CodeKind::e2m1 ? 4 : w.bits;
  job.word_step = w.format == FormatId::gptq ? 4 * w.rows : 4;
  if (has_group_codes(w.format)) {
    job.scale_step = group_part(w, w.scale, 0).step;
    if (format.integer && format.ints.codes == IntCodes::s8 && w.format != FormatId::int8_plain) {
      job.offset = static_cast<uint8_t>(code_offset(w));
    }
  } else if (w.scale_block_rows != 0) {
    job.scale_step = dtype_bytes(w.scale.dtype);
  }
  return job;
}

PackRow row_of(const PackJob& job, const PlacedRow& placed, RowScratch& scratch) {
  const WeightView& w = *placed.view;
  const int64_t row = placed.row, stored = w.stored_row(row);
  PackRow out{};
  switch (job.source) {
    case PackSource::columns:
      out.codes = bytes_of(w.codes) + stored * w.columns * code_bytes(job.floats.codes);
      if (w.scale_block_rows != 0) out.scales = block_scales_of(w, row);
      break;
    case PackSource::words:
      out.codes = bytes_of(w.codes) + (w.format == FormatId::gptq ? 4 * stored : stored * (w.columns * job.bits / 8));
      break;
    case PackSource::bytes:
      if (w.format == FormatId::int8_plain) {
        out.codes = bytes_of(w.codes) + stored * w.columns + job.first;
      } else {
        read_codes(w, row, job.first, job.end - job.first, scratch.codes);
        out.codes = scratch.codes;
      }
      break;
    default: out.codes = row_bytes(w, weight_format(w.format), row, 0); return out;
  }
  if (!has_group_codes(w.format)) return out;
  out.scales = group_part(w, w.scale, row).first;
  if (zero_kind(w) == ZeroKind::bias) out.minima = group_part(w, w.zero, row).first;
  if (zero_kind(w) == ZeroKind::point) {
    const int64_t columns = job.ints.group_blocks * kBlock, first = job.first / columns;
    for (int64_t g = first; g * columns < job.end; ++g) scratch.zeros[g - first] = static_cast<uint8_t>(zero_point(w, row, g));
    out.minima = scratch.zeros;
  }
  return out;
}

PackRows best_pack_rows() {
  // Before Zen 3 AMD's processors spread bits (PDEP) in microcode, tens of cycles each.
  static const bool fast = detect_cpu_features().supports(IsaLevel::avx2) && __builtin_cpu_supports("bmi2") &&
                           !__builtin_cpu_is("znver1") && !__builtin_cpu_is("znver2");
  return fast ? pack_rows_avx2 : pack_rows_scalar;
}

}  // namespace

void pack_rows(std::span<const PlacedRow> rows, const TileFormat& format, int64_t first, int64_t end, uint8_t* tile) {
  pack_rows_with(best_pack_rows(), rows, format, first, end, tile);
}

void pack_rows_with(PackRows pack, std::span<const PlacedRow> rows, const TileFormat& format, int64_t first,
                    int64_t end, uint8_t* tile) {
  constexpr int kTogether = 4;
  CHECK(end - first <= kPackColumns);
  RowScratch scratch[kTogether];
  for (int lane = 0, next = 0; lane < static_cast<int>(rows.size()); lane = next) {
    const PlacedRow* row = &rows[static_cast<size_t>(lane)];
    // Vectors of four lanes: no other four will do.
    bool together = lane % kTogether == 0 && lane + kTogether <= static_cast<int>(rows.size());
    for (int r = 1; together && r < kTogether; ++r) together = row[r].view == row->view;
    const int count = together ? kTogether : 1;
    const PackJob job = job_of(*row->view, format, first, end, tile);
    PackRow packed[kTogether];
    for (int r = 0; r < count; ++r) packed[r] = row_of(job, row[r], scratch[r]);
    pack(job, packed, lane, count);
    next = lane + count;
  }
}

void unpack_lane(const TileFormat& format, const uint8_t* tile, int lane, RowFactor factor, std::span<float> out) {
  if (format.integer) {
    for (size_t b = 0; b < out.size() / kBlock; ++b) {
      const IntBlock block(format.ints, tile, lane, static_cast<int64_t>(b), factor.times, factor.over);
      for (int j = 0; j < kBlock; ++j) out[b * kBlock + static_cast<size_t>(j)] = block.weight(j);
    }
    return;
  }
  for (size_t k = 0; k < out.size(); ++k) {
    out[k] = float_tile_weight(format.floats, tile, lane, static_cast<int64_t>(k), factor.times);
  }
}

}  // namespace bise
