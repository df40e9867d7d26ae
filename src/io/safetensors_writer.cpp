#include "io/safetensors_writer.h"

#include <algorithm>
#include <set>

#include "base/json.h"
#include "io/printable.h"
#include "io/shard_name.h"
#include "tensor/tensor_view.h"

namespace bise {
namespace {

constexpr const char* kEnding = ".safetensors";

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

Result<void> write_small_file(const std::string& path, const std::string& text) {
  FileWriter file = TRY(FileWriter::create(path));
  TRY(file.write(as_bytes(text)));
  return file.commit();
}

}  // namespace

Result<uint64_t> stored_bytes(const StoredTensor& tensor) {
  uint64_t bytes = dtype_bytes(tensor.dtype);
  CHECK(bytes != 0);
  for (int64_t size : tensor.shape) {
    if (size < 0 || !checked_mul(bytes, static_cast<uint64_t>(size), &bytes)) {
      return Error(ErrorCode::invalid_argument,
                   "tensor " + tensor.name + ": the size of " + shape_text(tensor.shape) + " overflows");
    }
  }
  return bytes;
}

Result<SafetensorsWriter> SafetensorsWriter::create(const std::string& folder,
                                                    std::vector<StoredTensor> tensors,
                                                    const SafetensorsWriterOptions& options) {
  SafetensorsWriter w;
  w.folder_ = folder;
  w.stem_ = options.stem;
  std::set<std::string> names;
  std::vector<std::pair<size_t, size_t>> runs;  // [first, end) of each shard
  uint64_t in_shard = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const StoredTensor& tensor = tensors[i];
    if (!is_printable_name(tensor.name)) {
      return Error(ErrorCode::invalid_argument, "a tensor with the name " + in_quotes(tensor.name) +
                                                    "; expected up to 1024 bytes without control characters");
    }
    if (!names.insert(tensor.name).second) {
      return Error(ErrorCode::invalid_argument, "tensor " + tensor.name + " occurs twice");
    }
    const uint64_t bytes = TRY(stored_bytes(tensor));
    if (!checked_add(w.total_bytes_, bytes, &w.total_bytes_)) {
      return Error(ErrorCode::invalid_argument, "the size of all tensors overflows");
    }
    if (runs.empty() || (in_shard > 0 && bytes > options.max_shard_bytes - std::min(in_shard, options.max_shard_bytes))) {
      runs.emplace_back(i, i);
      in_shard = 0;
    }
    runs.back().second = i + 1;
    in_shard += bytes;
  }
  if (runs.empty()) return Error(ErrorCode::invalid_argument, folder + ": no tensors to write");
  for (const auto& [first, end] : runs) {
    std::stable_sort(tensors.begin() + static_cast<ptrdiff_t>(first), tensors.begin() + static_cast<ptrdiff_t>(end),
                     [](const StoredTensor& a, const StoredTensor& b) { return dtype_bytes(a.dtype) > dtype_bytes(b.dtype); });
    ShardName shard{options.stem, static_cast<int>(w.shards_.size()) + 1, static_cast<int>(runs.size())};
    w.shards_.push_back({runs.size() == 1 ? options.stem + kEnding : make_shard_name(shard, kEnding), first, end});
  }
  w.tensors_ = std::move(tensors);
  for (const StoredTensor& tensor : w.tensors_) w.bytes_.push_back(TRY(stored_bytes(tensor)));
  TRY(w.begin_shard(w.shards_[0]));
  return w;
}

Result<void> SafetensorsWriter::begin_shard(const Shard& shard) {
  Json header = {{"__metadata__", {{"format", "pt"}}}};
  uint64_t offset = 0;
  for (size_t i = shard.first; i < shard.end; ++i) {
    const uint64_t end = offset + bytes_[i];
    const Json entry = {{"dtype", std::string(dtype_name(tensors_[i].dtype))},
                        {"shape", tensors_[i].shape},
                        {"data_offsets", {offset, end}}};
    // Not operator[]: it looks through all earlier keys each time.
    header.get_ref<Json::object_t&>().emplace_back(tensors_[i].name, entry);
    offset = end;
  }
  std::string text = dump(header);
  text.resize(round_up(text.size(), 8), ' ');
  const uint64_t size = text.size();
  FileWriter file = TRY(FileWriter::create(folder_ + "/" + shard.file));
  TRY(file.write(std::as_bytes(std::span(&size, 1))));
  TRY(file.write(as_bytes(text)));
  files_.push_back(std::move(file));
  return {};
}

Result<void> SafetensorsWriter::write(Bytes bytes) {
  while (next_ < tensors_.size() && bytes_[next_] == 0) ++next_;  // empty tensors take no bytes
  if (bytes.empty()) return {};
  CHECK(next_ < tensors_.size() && bytes.size() <= bytes_[next_] - written_);
  if (next_ >= shards_[files_.size() - 1].end) TRY(begin_shard(shards_[files_.size()]));
  TRY(files_.back().write(bytes));
  written_ += bytes.size();
  if (written_ == bytes_[next_]) {
    ++next_;
    written_ = 0;
  }
  return {};
}

Result<void> SafetensorsWriter::commit() {
  TRY(write({}));
  CHECK(next_ == tensors_.size());
  while (files_.size() < shards_.size()) TRY(begin_shard(shards_[files_.size()]));  // of empty tensors
  for (FileWriter& file : files_) TRY(file.commit());
  if (shards_.size() == 1) return {};
  Json map = Json::object();
  for (const Shard& shard : shards_) {
    for (size_t i = shard.first; i < shard.end; ++i) {
      map.get_ref<Json::object_t&>().emplace_back(tensors_[i].name, shard.file);
    }
  }
  const Json index = {{"metadata", {{"total_size", total_bytes_}}}, {"weight_map", std::move(map)}};
  return write_small_file(folder_ + "/" + stem_ + ".safetensors.index.json", dump(index));
}

}  // namespace bise
