#include "io/safetensors.h"

#include <algorithm>

#include "base/json.h"
#include "io/printable.h"

namespace bise {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr size_t kMaxDims = 8;

Error corrupt(std::string text) { return Error(ErrorCode::corrupt, std::move(text)); }

Result<uint64_t> unsigned_number(const Json& value, const std::string& place) {
  if (value.is_number_unsigned()) return value.get<uint64_t>();
  return corrupt(place + ": expected a number that is not negative, found " +
                 std::string(json_type_name(value)));
}

// One entry of the header; `begin` and `end` are its data_offsets.
Result<TensorView> read_entry(const std::string& name, const Json& entry, uint64_t* begin,
                              uint64_t* end) {
  if (!is_printable_name(name)) {
    return corrupt("a tensor with the name " + in_quotes(name) +
                   "; expected up to 1024 bytes without control characters");
  }
  const std::string place = "tensor " + name;
  if (!entry.is_object()) return corrupt(place + ": expected an object");
  auto dtype = entry.find("dtype"), shape = entry.find("shape"),
       offsets = entry.find("data_offsets");
  if (dtype == entry.end() || !dtype->is_string() || shape == entry.end() || !shape->is_array() ||
      offsets == entry.end() || !offsets->is_array() || offsets->size() != 2) {
    return corrupt(place + ": expected dtype, shape and two data_offsets");
  }
  TensorView tensor;
  tensor.name = name;
  auto known = dtype_from_safetensors(dtype->get<std::string>());
  if (!known) {
    return Error(ErrorCode::unsupported,
                 place + ": dtype " + in_quotes(dtype->get<std::string>()) + " is not known");
  }
  tensor.dtype = *known;
  if (shape->size() > kMaxDims) {
    return corrupt(place + ": found " + std::to_string(shape->size()) +
                   " dimensions, expected at most " + std::to_string(kMaxDims));
  }
  uint64_t bytes = dtype_bytes(tensor.dtype);
  for (const Json& size : *shape) {
    uint64_t n = TRY(unsigned_number(size, place + ": shape"));
    if (n > uint64_t{1} << 48 || !checked_mul(bytes, n, &bytes) || bytes > uint64_t{1} << 56) {
      return corrupt(place + ": its size overflows");
    }
    tensor.shape.push_back(static_cast<int64_t>(n));
  }
  *begin = TRY(unsigned_number((*offsets)[0], place + ": data_offsets"));
  *end = TRY(unsigned_number((*offsets)[1], place + ": data_offsets"));
  if (*end < *begin || *end - *begin != bytes) {
    return corrupt(place + ": data_offsets " + std::to_string(*begin) + " to " +
                   std::to_string(*end) + ", expected " + std::to_string(bytes) + " bytes for " +
                   std::string(dtype_name(tensor.dtype)) + " " + shape_text(tensor.shape));
  }
  return tensor;
}

Result<std::vector<TensorView>> parse(Bytes bytes) {
  ByteReader r(bytes);
  uint64_t header_bytes = TRY(r.read<uint64_t>());
  if (header_bytes > kMaxHeaderBytes || header_bytes > r.remaining()) {
    return corrupt("the header promises " + std::to_string(header_bytes) + " bytes, the file has " +
                   std::to_string(r.remaining()) + " (and at most " +
                   std::to_string(kMaxHeaderBytes) + " are accepted); is the download complete?");
  }
  std::string_view text = as_text(TRY(r.take(header_bytes)));
  Bytes blob = bytes.subspan(r.offset());
  const JsonLimits limits = {.max_bytes = kMaxHeaderBytes, .max_depth = 8};
  Json header = TRY(parse_json(text, limits).with_context("header"));
  if (!header.is_object()) return corrupt("header: expected an object");

  struct Range {
    uint64_t begin, end;
    size_t index;
  };
  std::vector<TensorView> tensors;
  std::vector<Range> ranges;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    uint64_t begin = 0, end = 0;
    TensorView tensor = TRY(read_entry(name, entry, &begin, &end));
    if (end > blob.size()) {
      return corrupt("tensor " + name + ": bytes " + std::to_string(begin) + " to " +
                     std::to_string(end) + " lie outside the data of " +
                     std::to_string(blob.size()) + " bytes; is the download complete?");
    }
    tensor.bytes = blob.subspan(begin, end - begin);
    ranges.push_back({begin, end, tensors.size()});
    tensors.push_back(std::move(tensor));
  }
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  uint64_t at = 0;
  for (const Range& range : ranges) {
    if (range.begin < at) {
      return corrupt("tensor " + tensors[range.index].name + " overlaps the one before it");
    }
    if (range.begin > at) {
      return corrupt("a gap of " + std::to_string(range.begin - at) + " bytes before tensor " +
                     tensors[range.index].name);
    }
    at = range.end;
  }
  if (at != blob.size()) {
    return corrupt(std::to_string(blob.size() - at) + " bytes behind the last tensor");
  }
  return tensors;
}

}  // namespace

Result<std::vector<TensorView>> parse_safetensors(Bytes bytes, const std::string& path) {
  try {
    return parse(bytes).with_context(path);
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::out_of_memory, path + ": out of memory while reading the header");
  }
}

}  // namespace bise
