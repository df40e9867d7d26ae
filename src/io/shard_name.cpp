#include "io/shard_name.h"

#include <cstdio>

namespace bise {
namespace {

int five_digits(const std::string& text, size_t at) {
  int value = 0;
  for (size_t i = at; i < at + 5; ++i) {
    if (text[i] < '0' || text[i] > '9') return -1;
    value = 10 * value + (text[i] - '0');
  }
  return value;
}

}  // namespace

std::optional<ShardName> parse_shard_name(const std::string& name, const std::string& ending) {
  constexpr size_t kNumbers = sizeof("-00001-of-00003") - 1;
  if (name.size() <= kNumbers + ending.size() || !name.ends_with(ending)) return std::nullopt;
  size_t at = name.size() - ending.size() - kNumbers;
  if (name[at] != '-' || name.compare(at + 6, 4, "-of-") != 0) return std::nullopt;
  ShardName shard{name.substr(0, at), five_digits(name, at + 1), five_digits(name, at + 10)};
  if (shard.number < 1 || shard.number > shard.count) return std::nullopt;
  return shard;
}

std::string make_shard_name(const ShardName& shard, const std::string& ending) {
  char numbers[64];
  std::snprintf(numbers, sizeof numbers, "-%05d-of-%05d", shard.number, shard.count);
  return shard.stem + numbers + ending;
}

}  // namespace bise
