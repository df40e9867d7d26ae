#include "io/gguf_writer.h"

#include <set>

#include "io/printable.h"
#include "tensor/tensor_view.h"
#include "tensor/weight_format.h"

namespace bise {
namespace {

constexpr uint64_t kAlignment = 32;
enum ValueType : uint32_t { kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7, kString = 8, kArray = 9 };

template <class T>
void append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}
void append_string(std::string& out, std::string_view text) {
  append<uint64_t>(out, text.size());
  out += text;
}

}  // namespace

void GgufMetadata::begin(std::string_view key, uint32_t type) {
  CHECK(is_printable_name(key));
  append_string(bytes_, key);
  append(bytes_, type);
  ++count_;
}
void GgufMetadata::set_u32(std::string_view key, uint32_t value) {
  begin(key, kU32);
  append(bytes_, value);
}
void GgufMetadata::set_f32(std::string_view key, float value) {
  begin(key, kF32);
  append(bytes_, value);
}
void GgufMetadata::set_bool(std::string_view key, bool value) {
  begin(key, kBool);
  append<uint8_t>(bytes_, value ? 1 : 0);
}
void GgufMetadata::set_string(std::string_view key, std::string_view value) {
  begin(key, kString);
  append_string(bytes_, value);
}
void GgufMetadata::set_strings(std::string_view key, std::span<const std::string> values) {
  begin(key, kArray);
  append<uint32_t>(bytes_, kString);
  append<uint64_t>(bytes_, values.size());
  for (const std::string& value : values) append_string(bytes_, value);
}
void GgufMetadata::set_i32s(std::string_view key, std::span<const int32_t> values) {
  begin(key, kArray);
  append<uint32_t>(bytes_, kI32);
  append<uint64_t>(bytes_, values.size());
  for (int32_t value : values) append(bytes_, value);
}
void GgufMetadata::set_f32s(std::string_view key, std::span<const float> values) {
  begin(key, kArray);
  append<uint32_t>(bytes_, kF32);
  append<uint64_t>(bytes_, values.size());
  for (float value : values) append(bytes_, value);
}

Result<uint64_t> gguf_tensor_bytes(const GgufTensor& tensor) {
  const std::string place = "tensor " + tensor.name;
  const WeightFormat* format = weight_format_of_ggml(tensor.ggml_type);
  CHECK(format != nullptr);
  if (tensor.shape.empty() || tensor.shape.size() > 4) {
    return Error(ErrorCode::invalid_argument,
                 place + ": found " + std::to_string(tensor.shape.size()) + " dimensions, expected 1 to 4");
  }
  uint64_t bytes = TRY(weight_row_bytes(*format, tensor.shape.back()).with_context(place));
  for (size_t i = 0; i + 1 < tensor.shape.size(); ++i) {
    if (tensor.shape[i] < 0 || !checked_mul(bytes, static_cast<uint64_t>(tensor.shape[i]), &bytes)) {
      return Error(ErrorCode::invalid_argument, place + ": the size of " + shape_text(tensor.shape) + " overflows");
    }
  }
  return bytes;
}

Result<GgufWriter> GgufWriter::create(const std::string& path, const GgufMetadata& metadata,
                                      std::vector<GgufTensor> tensors) {
  std::string head = "GGUF";
  append<uint32_t>(head, 3);
  append<uint64_t>(head, tensors.size());
  append<uint64_t>(head, metadata.count());
  head += metadata.bytes();
  std::set<std::string> names;
  std::vector<uint64_t> bytes;
  uint64_t offset = 0, total = 0;
  for (const GgufTensor& tensor : tensors) {
    if (!is_printable_name(tensor.name) || !names.insert(tensor.name).second) {
      return Error(ErrorCode::invalid_argument,
                   path + ": tensor " + in_quotes(tensor.name) + " occurs twice or has no usable name");
    }
    bytes.push_back(TRY(gguf_tensor_bytes(tensor).with_context(path)));
    total += bytes.back();
    append_string(head, tensor.name);
    append<uint32_t>(head, static_cast<uint32_t>(tensor.shape.size()));
    for (size_t i = tensor.shape.size(); i-- > 0;) append<uint64_t>(head, static_cast<uint64_t>(tensor.shape[i]));
    append<uint32_t>(head, static_cast<uint32_t>(tensor.ggml_type));
    append<uint64_t>(head, offset);
    if (!checked_add(offset, bytes.back(), &offset) || !checked_round_up(offset, kAlignment, &offset)) {
      return Error(ErrorCode::invalid_argument, path + ": the size of all tensors overflows");
    }
  }
  head.resize(round_up(head.size(), kAlignment), '\0');
  GgufWriter writer(TRY(FileWriter::create(path)));
  TRY(writer.file_.write(as_bytes(head)));
  writer.tensors_ = std::move(tensors);
  writer.bytes_ = std::move(bytes);
  writer.total_bytes_ = total;
  return writer;
}

Result<void> GgufWriter::write(Bytes bytes) {
  while (next_ < tensors_.size() && bytes_[next_] == 0) ++next_;
  if (bytes.empty()) return {};
  CHECK(next_ < tensors_.size() && bytes.size() <= bytes_[next_] - written_);
  TRY(file_.write(bytes));
  written_ += bytes.size();
  if (written_ == bytes_[next_]) {
    static constexpr std::byte kZeros[kAlignment] = {};
    TRY(file_.write(Bytes(kZeros).first(round_up(written_, kAlignment) - written_)));
    ++next_;
    written_ = 0;
  }
  return {};
}

Result<void> GgufWriter::commit() {
  TRY(write({}));
  CHECK(next_ == tensors_.size());
  return file_.commit();
}

}  // namespace bise
