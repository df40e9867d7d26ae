// Small checkpoint files built in memory. Shared by the tests of
// tensor and io; sizes and offsets can be falsified after the fact through the returned string.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"

namespace bise::test {

template <class T>
void append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

inline void append_counted(std::string& out, std::string_view text) {
  append<uint64_t>(out, text.size());
  out += text;
}

// A safetensors file from its JSON header and its blob, taken as they are.
inline std::string safetensors_file(const std::string& header, const std::string& blob) {
  std::string file;
  append<uint64_t>(file, header.size());
  return file + header + blob;
}

// Collects tensors one behind the other.
class SafetensorsBuilder {
 public:
  SafetensorsBuilder& add(const std::string& name, const std::string& dtype,
                          const std::vector<int64_t>& shape, const std::string& data) {
    std::string sizes;
    for (int64_t size : shape) sizes += (sizes.empty() ? "" : ",") + std::to_string(size);
    entries_ += (entries_.empty() ? "" : ",") + ("\"" + name + "\":{\"dtype\":\"" + dtype) +
                "\",\"shape\":[" + sizes + "],\"data_offsets\":[" + std::to_string(blob_.size()) +
                "," + std::to_string(blob_.size() + data.size()) + "]}";
    blob_ += data;
    return *this;
  }
  std::string file() const { return safetensors_file("{" + entries_ + "}", blob_); }

 private:
  std::string entries_, blob_;
};

// Metadata values are given as their type number and their bytes.
class GgufBuilder {
 public:
  uint32_t version = 3;
  uint64_t alignment = 32;

  GgufBuilder& raw(const std::string& key, uint32_t type, const std::string& value) {
    append_counted(keys_, key);
    append(keys_, type);
    keys_ += value;
    ++num_keys_;
    return *this;
  }
  template <class T>
  GgufBuilder& number(const std::string& key, uint32_t type, T value) {
    std::string bytes;
    append(bytes, value);
    return raw(key, type, bytes);
  }
  GgufBuilder& u32(const std::string& key, uint32_t value) { return number(key, 4, value); }
  GgufBuilder& text(const std::string& key, const std::string& value) {
    std::string bytes;
    append_counted(bytes, value);
    return raw(key, 8, bytes);
  }
  GgufBuilder& texts(const std::string& key, const std::vector<std::string>& values) {
    std::string bytes;
    append<uint32_t>(bytes, 8);
    append<uint64_t>(bytes, values.size());
    for (const std::string& value : values) append_counted(bytes, value);
    return raw(key, 9, bytes);
  }
  // `dims` in GGUF's order, fastest first.
  GgufBuilder& tensor(const std::string& name, const std::vector<uint64_t>& dims, uint32_t type,
                      const std::string& data) {
    blob_.resize(round_up(blob_.size(), alignment));
    tensor_at(name, dims, type, blob_.size());
    blob_ += data;
    return *this;
  }
  GgufBuilder& tensor_at(const std::string& name, const std::vector<uint64_t>& dims, uint32_t type,
                         uint64_t offset) {
    append_counted(infos_, name);
    append<uint32_t>(infos_, static_cast<uint32_t>(dims.size()));
    for (uint64_t size : dims) append(infos_, size);
    append(infos_, type);
    append(infos_, offset);
    ++num_tensors_;
    return *this;
  }
  std::string file() const {
    std::string out = "GGUF";
    append(out, version);
    append(out, num_tensors_);
    append(out, num_keys_);
    out += keys_ + infos_;
    if (num_tensors_ > 0) out.resize(round_up(out.size(), alignment));
    return out + blob_;
  }

 private:
  std::string keys_, infos_, blob_;
  uint64_t num_keys_ = 0, num_tensors_ = 0;
};

inline std::string floats(const std::vector<float>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}

inline std::string slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

// What every refusal must be: one line, and naming what the test expects.
template <class T>
void expect_error(const Result<T>& result, const std::string& part) {
  ASSERT_FALSE(result.has_value()) << "expected an error with: " << part;
  const std::string& message = result.error().message();
  EXPECT_NE(message.find(part), std::string::npos) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  EXPECT_LT(message.size(), 600u) << message;
}

}  // namespace bise::test
