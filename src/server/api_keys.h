// API keys: who may ask, and under which tenant's share.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace bise {

class ApiKeys {
 public:
  // One key per line, optionally a blank and a name behind it; empty lines and those that begin with #
  // do not count. Error: no key, a key of less than 8 characters, the same key twice.
  static Result<ApiKeys> parse(std::string_view text);
  ApiKeys() = default;  // none: everybody may
  Result<void> add(std::string_view key, std::string name);

  bool empty() const { return keys_.empty(); }
  size_t size() const { return keys_.size(); }
  // The name of the key, or nothing. The time does not depend on how much of a key is right.
  std::optional<std::string> tenant_of(std::string_view key) const;

 private:
  using Digest = std::array<unsigned char, 32>;
  struct Key {
    Digest digest;
    std::string name;
  };
  std::vector<Key> keys_;
};

}  // namespace bise
