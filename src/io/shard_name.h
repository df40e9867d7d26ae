// "x-00001-of-00003.gguf": the one spelling of shards that all tools write.
#pragma once

#include <optional>
#include <string>

namespace bise {

struct ShardName {
  std::string stem;
  int number = 0, count = 0;
};

// `ending` is ".gguf" or ".safetensors". Five digits each, 1 <= number <= count; else nothing.
std::optional<ShardName> parse_shard_name(const std::string& name, const std::string& ending);
std::string make_shard_name(const ShardName& shard, const std::string& ending);

}  // namespace bise
