// GGUF v3 (and v2): metadata and tensor table of one file. Little endian. The byte layout:
//   "GGUF" u32 version u64 n_tensors u64 n_kv, then n_kv (string key, u32 type, value), then
//   n_tensors (string name, u32 n_dims, u64 dims[fastest first], u32 type, u64 offset), padding to
//   general.alignment (32), data. A string is u64 length and bytes.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "tensor/tensor_view.h"

namespace bise {

struct GgufArray {
  uint32_t element_type = 0;  // GGUF value type number
  uint64_t count = 0;
  Bytes
      bytes;  // fixed-size elements: raw; strings: the raw length-prefixed run (checked at opening)
};
using GgufValue = std::variant<uint64_t, int64_t, double, bool, std::string_view, GgufArray>;

// "Q4_K", "IQ2_XXS": the name of a tensor type, also of those that weight_format does not know;
// "number 99" for one that is in no list.
std::string ggml_type_name(int ggml_type);

class GgufFile {
 public:
  static Result<GgufFile> open(const std::string& path);
  // The same on bytes that someone else owns (tests, fuzzing). They must outlive the result.
  static Result<GgufFile> parse(Bytes bytes, const std::string& path);

  const std::map<std::string, GgufValue, std::less<>>& metadata() const { return metadata_; }
  const std::vector<TensorView>& tensors() const { return tensors_; }
  const std::string& path() const { return path_; }
  const std::optional<FileMap>& map() const { return map_; }

  // Typed metadata: fallback when the key is missing; Error when the type does not fit. Integers
  // are accepted of any width.
  Result<int64_t> get_int(std::string_view key, int64_t fallback) const;
  Result<double> get_number(std::string_view key, double fallback) const;
  Result<bool> get_bool(std::string_view key, bool fallback) const;
  Result<std::string> get_string(std::string_view key, const std::string& fallback) const;
  Result<std::vector<std::string_view>> get_strings(std::string_view key) const;  // missing: empty
  Result<std::vector<int64_t>> get_ints(std::string_view key) const;              // missing: empty
  Result<std::vector<float>> get_floats(std::string_view key) const;              // missing: empty
  bool has(std::string_view key) const { return metadata_.find(key) != metadata_.end(); }

 private:
  std::string path_;
  std::optional<FileMap> map_;
  std::map<std::string, GgufValue, std::less<>> metadata_;
  std::vector<TensorView> tensors_;
};

}  // namespace bise
