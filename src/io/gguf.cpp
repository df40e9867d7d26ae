#include "io/gguf.h"

#include <algorithm>
#include <bit>
#include <set>

#include "io/printable.h"
#include "tensor/weight_format.h"

namespace bise {
namespace {

enum ValueType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64,
  kValueTypes
};
constexpr uint64_t kElementBytes[kValueTypes] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
constexpr uint64_t kMaxTensors = 1 << 20;
constexpr uint64_t kMaxKeys = 1 << 16;
constexpr uint32_t kMaxDims = 4;
constexpr uint64_t kMaxElements = uint64_t{1} << 48;

Error corrupt(std::string text) { return Error(ErrorCode::corrupt, std::move(text)); }

Result<std::string_view> read_string(ByteReader& reader, uint64_t max_bytes) {
  uint64_t length = TRY(reader.read<uint64_t>());
  if (length > max_bytes) {
    return corrupt("a string of " + std::to_string(length) + " bytes at byte " +
                   std::to_string(reader.offset()) + "; at most " + std::to_string(max_bytes) +
                   " are allowed here");
  }
  return as_text(TRY(reader.take(length)));
}

// A tensor's name or a metadata key; `what` says which.
Result<std::string> read_name(ByteReader& reader, const char* what) {
  uint64_t at = reader.offset();
  std::string_view name = TRY(read_string(reader, uint64_t{1} << 30));
  if (!is_printable_name(name)) {
    return corrupt(std::string("the name of a ") + what + " at byte " + std::to_string(at) +
                   ": found " + in_quotes(name) +
                   ", expected 1 to 1024 bytes without control characters");
  }
  return std::string(name);
}

GgufValue unsigned_value(uint64_t value) { return value; }
GgufValue signed_value(int64_t value) { return value; }

Result<GgufValue> read_scalar(ByteReader& r, uint32_t type) {
  switch (type) {
    case kU8: return unsigned_value(TRY(r.read<uint8_t>()));
    case kU16: return unsigned_value(TRY(r.read<uint16_t>()));
    case kU32: return unsigned_value(TRY(r.read<uint32_t>()));
    case kU64: return unsigned_value(TRY(r.read<uint64_t>()));
    case kI8: return signed_value(TRY(r.read<int8_t>()));
    case kI16: return signed_value(TRY(r.read<int16_t>()));
    case kI32: return signed_value(TRY(r.read<int32_t>()));
    case kI64: return signed_value(TRY(r.read<int64_t>()));
    case kF32: return GgufValue(static_cast<double>(TRY(r.read<float>())));
    case kF64: return GgufValue(TRY(r.read<double>()));
    case kBool: return GgufValue(TRY(r.read<uint8_t>()) != 0);
    case kString: return GgufValue(TRY(read_string(r, uint64_t{1} << 30)));
    default: break;
  }
  return corrupt("value type " + std::to_string(type) + " is not one of GGUF's");
}

// Arrays stay raw: only their extent is found here. Arrays of arrays are not used by any model
// file.
Result<GgufValue> read_array(ByteReader& r, Bytes whole) {
  GgufArray array;
  array.element_type = TRY(r.read<uint32_t>());
  array.count = TRY(r.read<uint64_t>());
  if (array.element_type >= kValueTypes || array.element_type == kArray) {
    return corrupt("an array of value type " + std::to_string(array.element_type) +
                   " is not supported");
  }
  uint64_t begin = r.offset();
  if (array.element_type == kString) {
    if (array.count > r.remaining() / 8) {
      return corrupt("an array of " + std::to_string(array.count) + " strings does not fit into the " +
                     std::to_string(r.remaining()) + " bytes that follow; is the download complete?");
    }
    for (uint64_t i = 0; i < array.count; ++i) TRY(read_string(r, uint64_t{1} << 24));
  } else {
    uint64_t bytes = 0;
    if (!checked_mul(array.count, kElementBytes[array.element_type], &bytes)) {
      return corrupt("the size of an array overflows");
    }
    TRY(r.take(bytes));
  }
  array.bytes = whole.subspan(begin, r.offset() - begin);
  return GgufValue(array);
}

Result<TensorView> read_tensor_info(ByteReader& r, uint64_t* offset) {
  TensorView tensor;
  tensor.name = TRY(read_name(r, "tensor"));
  uint32_t dims = TRY(r.read<uint32_t>());
  if (dims > kMaxDims) {
    return corrupt("tensor " + tensor.name + ": found " + std::to_string(dims) +
                   " dimensions, expected at most " + std::to_string(kMaxDims));
  }
  uint64_t elements = 1;
  for (uint32_t i = 0; i < dims; ++i) {
    uint64_t size = TRY(r.read<uint64_t>());
    // A size of 0 counts as 1 here, so that no product over some of the dimensions overflows.
    if (!checked_mul(elements, std::max<uint64_t>(size, 1), &elements) || elements > kMaxElements) {
      return corrupt("tensor " + tensor.name + ": its size overflows");
    }
    tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(size));
  }
  uint32_t type = TRY(r.read<uint32_t>());
  tensor.ggml_type = static_cast<int>(std::min<uint32_t>(type, INT32_MAX));
  tensor.dtype = type == 0    ? DType::f32
                 : type == 1  ? DType::f16
                 : type == 30 ? DType::bf16
                              : DType::block;
  *offset = TRY(r.read<uint64_t>());
  return tensor;
}

// Bytes of a tensor's data; a type that is not in our registry counts as unknown (0 and false).
Result<uint64_t> tensor_bytes(const TensorView& tensor, bool* known) {
  const WeightFormat* format = weight_format_of_ggml(tensor.ggml_type);
  *known = format != nullptr;
  if (format == nullptr) return uint64_t{0};
  int64_t columns = tensor.shape.empty() ? 1 : tensor.shape.back();
  uint64_t row = TRY(weight_row_bytes(*format, columns).with_context("tensor " + tensor.name));
  uint64_t rows = columns == 0 ? 0 : static_cast<uint64_t>(tensor.num_elements() / columns);
  uint64_t bytes = 0;
  if (!checked_mul(row, rows, &bytes))
    return corrupt("tensor " + tensor.name + ": its size overflows");
  return bytes;
}

struct Placed {
  uint64_t offset;
  size_t index;
  bool known;
  uint64_t bytes;
};

// Gives each tensor its bytes: inside the data, aligned, none over another. A tensor of unknown
// type reaches up to its neighbour.
Result<void> place_tensors(std::vector<TensorView>& tensors, const std::vector<uint64_t>& offsets,
                           Bytes data, uint64_t alignment) {
  std::vector<Placed> placed;
  for (size_t i = 0; i < tensors.size(); ++i) {
    Placed p{offsets[i], i, true, 0};
    p.bytes = TRY(tensor_bytes(tensors[i], &p.known));
    uint64_t end = 0;
    if (p.offset % alignment != 0) {
      return corrupt("tensor " + tensors[i].name + ": offset " + std::to_string(p.offset) +
                     " is not a multiple of the alignment " + std::to_string(alignment));
    }
    if (!checked_add(p.offset, p.bytes, &end) || end > data.size()) {
      return corrupt("tensor " + tensors[i].name + ": bytes " + std::to_string(p.offset) + " to " +
                     std::to_string(end) + " lie outside the data of " +
                     std::to_string(data.size()) + " bytes; is the download complete?");
    }
    placed.push_back(p);
  }
  std::sort(placed.begin(), placed.end(), [](const Placed& a, const Placed& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.bytes < b.bytes;
  });
  for (size_t i = 0; i < placed.size(); ++i) {
    uint64_t next = i + 1 < placed.size() ? placed[i + 1].offset : data.size();
    if (!placed[i].known) placed[i].bytes = next - placed[i].offset;
    if (placed[i].offset + placed[i].bytes > next) {
      return corrupt("tensors " + tensors[placed[i].index].name + " and " +
                     tensors[placed[i + 1].index].name + " overlap");
    }
    tensors[placed[i].index].bytes = data.subspan(placed[i].offset, placed[i].bytes);
  }
  return {};
}

std::string key_place(const std::string& path, std::string_view key) {
  return path + ": metadata " + std::string(key);
}

// The types of ggml that are not in our registry of weight formats.
constexpr std::pair<int, const char*> kOtherTypes[] = {
    {9, "Q8_1"},   {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"},
    {19, "IQ1_S"}, {21, "IQ3_S"}, {22, "IQ2_S"},   {24, "I8"},     {25, "I16"},
    {26, "I32"},   {27, "I64"},   {28, "F64"},     {29, "IQ1_M"},  {34, "TQ1_0"},
    {35, "TQ2_0"}, {40, "NVFP4"}, {41, "Q1_0"},    {42, "Q2_0"},
};

}  // namespace

std::string ggml_type_name(int ggml_type) {
  if (const WeightFormat* format = weight_format_of_ggml(ggml_type))
    return std::string(format->name);
  for (const auto& [number, name] : kOtherTypes) {
    if (number == ggml_type) return name;
  }
  return "number " + std::to_string(ggml_type);
}

Result<GgufFile> GgufFile::open(const std::string& path) {
  FileMap map = TRY(FileMap::open(path));
  GgufFile file = TRY(parse(map.bytes(), path));
  file.map_ = std::move(map);
  return file;
}

Result<GgufFile> GgufFile::parse(Bytes bytes, const std::string& path) {
  auto read = [&]() -> Result<GgufFile> {
    GgufFile file;
    file.path_ = path;
    ByteReader r(bytes);
    if (bytes.size() < 4 || as_text(bytes.first(4)) != "GGUF") {
      return corrupt("not a GGUF file: it does not begin with \"GGUF\"");
    }
    TRY(r.take(4));
    uint32_t version = TRY(r.read<uint32_t>());
    if (version != 2 && version != 3) {
      return Error(ErrorCode::unsupported,
                   "GGUF version " + std::to_string(version) + ", expected 2 or 3 (little endian)");
    }
    uint64_t num_tensors = TRY(r.read<uint64_t>());
    uint64_t num_keys = TRY(r.read<uint64_t>());
    if (num_tensors > kMaxTensors || num_keys > kMaxKeys) {
      return corrupt("the header promises " + std::to_string(num_tensors) + " tensors and " +
                     std::to_string(num_keys) + " keys; at most " + std::to_string(kMaxTensors) +
                     " and " + std::to_string(kMaxKeys) + " are accepted");
    }
    for (uint64_t i = 0; i < num_keys; ++i) {
      std::string key = TRY(read_name(r, "metadata value"));
      uint32_t type = TRY(r.read<uint32_t>().with_context("metadata " + key));
      GgufValue value = type == kArray ? TRY(read_array(r, bytes).with_context("metadata " + key))
                                       : TRY(read_scalar(r, type).with_context("metadata " + key));
      if (!file.metadata_.emplace(key, value).second) {
        return corrupt("metadata " + key + " occurs twice");
      }
    }
    int64_t alignment = TRY(file.get_int("general.alignment", 32));
    if (alignment <= 0 || alignment > 1 << 20 ||
        !std::has_single_bit(static_cast<uint64_t>(alignment))) {
      return corrupt("metadata general.alignment: found " + std::to_string(alignment) +
                     ", expected a power of two");
    }
    std::vector<uint64_t> offsets;
    std::set<std::string_view> names;
    // A tensor's entry takes at least 24 bytes: nothing is reserved on a promise alone.
    file.tensors_.reserve(std::min(num_tensors, r.remaining() / 24));
    for (uint64_t i = 0; i < num_tensors; ++i) {
      uint64_t offset = 0;
      file.tensors_.push_back(TRY(read_tensor_info(r, &offset)));
      offsets.push_back(offset);
    }
    for (const TensorView& tensor : file.tensors_) {
      if (!names.insert(tensor.name).second)
        return corrupt("tensor " + tensor.name + " occurs twice");
    }
    uint64_t start = round_up(r.offset(), static_cast<uint64_t>(alignment));
    if (num_tensors > 0 && start > bytes.size()) {
      return corrupt("the file ends before its data, which starts at byte " +
                     std::to_string(start));
    }
    Bytes data = start > bytes.size() ? Bytes() : bytes.subspan(start);
    TRY(place_tensors(file.tensors_, offsets, data, static_cast<uint64_t>(alignment)));
    return file;
  };
  try {
    return read().with_context(path);
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::out_of_memory, path + ": out of memory while reading the tables");
  }
}

Result<int64_t> GgufFile::get_int(std::string_view key, int64_t fallback) const {
  auto it = metadata_.find(key);
  if (it == metadata_.end()) return fallback;
  if (const auto* value = std::get_if<int64_t>(&it->second)) return *value;
  if (const auto* value = std::get_if<uint64_t>(&it->second)) {
    if (*value <= static_cast<uint64_t>(INT64_MAX)) return static_cast<int64_t>(*value);
  }
  return corrupt(key_place(path_, key) + ": expected an integer");
}

Result<double> GgufFile::get_number(std::string_view key, double fallback) const {
  auto it = metadata_.find(key);
  if (it == metadata_.end()) return fallback;
  if (const auto* value = std::get_if<double>(&it->second)) return *value;
  if (const auto* value = std::get_if<int64_t>(&it->second)) return static_cast<double>(*value);
  if (const auto* value = std::get_if<uint64_t>(&it->second)) return static_cast<double>(*value);
  return corrupt(key_place(path_, key) + ": expected a number");
}

Result<bool> GgufFile::get_bool(std::string_view key, bool fallback) const {
  auto it = metadata_.find(key);
  if (it == metadata_.end()) return fallback;
  if (const bool* value = std::get_if<bool>(&it->second)) return *value;
  return corrupt(key_place(path_, key) + ": expected true or false");
}

Result<std::string> GgufFile::get_string(std::string_view key, const std::string& fallback) const {
  auto it = metadata_.find(key);
  if (it == metadata_.end()) return fallback;
  if (const auto* value = std::get_if<std::string_view>(&it->second)) return std::string(*value);
  return corrupt(key_place(path_, key) + ": expected a string");
}

Result<std::vector<std::string_view>> GgufFile::get_strings(std::string_view key) const {
  std::vector<std::string_view> out;
  auto it = metadata_.find(key);
  if (it == metadata_.end()) return out;
  const auto* array = std::get_if<GgufArray>(&it->second);
  if (array == nullptr || array->element_type != kString) {
    return corrupt(key_place(path_, key) + ": expected an array of strings");
  }
  out.reserve(array->count);  // each took 8 bytes of the file at least
  ByteReader r(array->bytes);
  for (uint64_t i = 0; i < array->count; ++i) out.push_back(TRY(read_string(r, uint64_t{1} << 24)));
  return out;
}

Result<std::vector<int64_t>> GgufFile::get_ints(std::string_view key) const {
  std::vector<int64_t> out;
  auto it = metadata_.find(key);
  if (it == metadata_.end()) return out;
  const auto* array = std::get_if<GgufArray>(&it->second);
  if (array == nullptr) return corrupt(key_place(path_, key) + ": expected an array of integers");
  ByteReader r(array->bytes);
  out.reserve(array->count);
  for (uint64_t i = 0; i < array->count; ++i) {
    GgufValue value = TRY(read_scalar(r, array->element_type));
    if (const auto* u = std::get_if<uint64_t>(&value)) out.push_back(static_cast<int64_t>(*u));
    else if (const auto* s = std::get_if<int64_t>(&value)) out.push_back(*s);
    else return corrupt(key_place(path_, key) + ": expected an array of integers");
  }
  return out;
}

Result<std::vector<float>> GgufFile::get_floats(std::string_view key) const {
  std::vector<float> out;
  auto it = metadata_.find(key);
  if (it == metadata_.end()) return out;
  const auto* array = std::get_if<GgufArray>(&it->second);
  if (array == nullptr || (array->element_type != kF32 && array->element_type != kF64)) {
    return corrupt(key_place(path_, key) + ": expected an array of numbers");
  }
  ByteReader r(array->bytes);
  out.reserve(array->count);
  for (uint64_t i = 0; i < array->count; ++i) {
    GgufValue value = TRY(read_scalar(r, array->element_type));
    out.push_back(static_cast<float>(std::get<double>(value)));
  }
  return out;
}

}  // namespace bise
