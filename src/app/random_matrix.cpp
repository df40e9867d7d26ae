#include "app/random_matrix.h"

#include <cstring>

#include "base/float_types.h"
#include "io/safetensors_writer.h"
#include "tensor/random_weight.h"

namespace bise {
namespace {

double value_at(const RandomTensor& tensor, uint64_t i) {
  switch (tensor.content) {
    case RandomContent::group_index: return static_cast<double>(i / static_cast<uint64_t>(tensor.value));
    case RandomContent::sizes: return i == 0 ? tensor.value : tensor.second;
    default: return tensor.value;
  }
}

void put(DType dtype, double value, std::byte* to) {
  auto store = [to](auto number) { std::memcpy(to, &number, sizeof number); };
  switch (dtype) {
    case DType::f32: return store(static_cast<float>(value));
    case DType::f16: return store(f32_to_f16(static_cast<float>(value)));
    case DType::bf16: return store(f32_to_bf16(static_cast<float>(value)));
    case DType::i32: return store(static_cast<uint32_t>(value));
    case DType::i64: return store(static_cast<int64_t>(value));
    default: CHECK(false);
  }
}

}  // namespace

Result<uint64_t> random_tensor_bytes(const RandomTensor& tensor) {
  if (tensor.content != RandomContent::weights) return stored_bytes({tensor.name, tensor.dtype, tensor.shape});
  uint64_t bytes = TRY(weight_row_bytes(weight_format(tensor.format), tensor.shape.back()).with_context("tensor " + tensor.name));
  for (size_t i = 0; i + 1 < tensor.shape.size(); ++i) {
    if (!checked_mul(bytes, static_cast<uint64_t>(tensor.shape[i]), &bytes)) {
      return Error(ErrorCode::invalid_argument, "tensor " + tensor.name + ": the size of " + shape_text(tensor.shape) + " overflows");
    }
  }
  return bytes;
}

uint64_t random_element_bytes(const RandomTensor& tensor) {
  if (tensor.content != RandomContent::weights) return dtype_bytes(tensor.dtype);
  return static_cast<uint64_t>(weight_format(tensor.format).block_bytes);
}

void fill_random_tensor(const RandomTensor& tensor, uint64_t seed, uint64_t stream, uint64_t first, std::span<std::byte> out) {
  switch (tensor.content) {
    case RandomContent::weights: return fill_random_weight(tensor.format, kRandomDeviation, seed, stream, first, out);
    case RandomContent::codes: return fill_random_codes(seed, stream, first * dtype_bytes(tensor.dtype), out);
    case RandomContent::scales:
      return fill_random_scales(tensor.dtype, tensor.value, tensor.factor, seed,
                                stream - static_cast<uint64_t>(tensor.follows), first, out);
    case RandomContent::constant:
    case RandomContent::sizes:
    case RandomContent::group_index: break;
  }
  const size_t width = dtype_bytes(tensor.dtype);
  for (size_t at = 0; at < out.size(); at += width) put(tensor.dtype, value_at(tensor, first + at / width), &out[at]);
}

Result<RandomMatrixWeight> RandomMatrixWeight::create(const ModelFormat& format, Layout layout, int64_t rows,
                                                      int64_t columns, uint64_t seed) {
  if (columns % format.group != 0) {
    return Error(ErrorCode::invalid_argument, format.name + ": found " + std::to_string(columns) +
                                                  " columns, expected a multiple of " + std::to_string(format.group));
  }
  RandomMatrixWeight w;
  WeightView& view = w.view_;
  view.name = "random";
  view.format = format.weights;
  view.rows = rows;
  view.columns = columns;
  const bool grouped = weight_format(format.weights).block_bytes == 0;
  if (grouped) {
    view.bits = format.bits;
    view.group = format.group;
  }
  uint64_t stream = 0;
  for (const RandomTensor& tensor : format.tensors(format, {"", rows, columns, true}, layout)) {
    std::vector<std::byte>& bytes = w.tensors_.emplace_back(TRY(random_tensor_bytes(tensor)));
    fill_random_tensor(tensor, seed, stream++, 0, bytes);
    auto part = [&](TensorView& to) {
      to.name = tensor.name;
      to.dtype = tensor.dtype;
      to.shape = tensor.shape;
      to.bytes = bytes;
    };
    if (tensor.name == "weight" || tensor.name == "weight_packed" || tensor.name == "qweight") {
      view.codes = bytes;
    } else if (tensor.name == "weight_scale" || tensor.name == "weight_scale_inv" || tensor.name == "scales") {
      part(view.scale);
    } else if (tensor.name == "biases" || tensor.name == "qzeros") {
      part(view.zero);
    } else if (tensor.name == "weight_global_scale") {
      view.global_scale = static_cast<float>(tensor.value);
      view.global_divides = true;
    }
  }
  if (format.weights == FormatId::gptq) view.zero_offset = 1;
  return w;
}

uint64_t RandomMatrixWeight::stored_bytes() const {
  uint64_t total = view_.codes.size();
  view_.each_side_part([&](Bytes bytes) { total += bytes.size(); });
  return total;
}

}  // namespace bise
