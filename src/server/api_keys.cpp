#include "server/api_keys.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>

namespace bise {
namespace {

std::array<unsigned char, 32> digest_of(std::string_view key) {
  std::array<unsigned char, 32> out{};
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), out.data());
  return out;
}

}  // namespace

Result<void> ApiKeys::add(std::string_view key, std::string name) {
  constexpr size_t kShortest = 8;
  if (key.size() < kShortest) {
    return Error(ErrorCode::invalid_argument, "an API key has " + std::to_string(key.size()) + " characters; at least " +
                                                  std::to_string(kShortest) + " are needed");
  }
  const bool fit = std::all_of(key.begin(), key.end(), [](char c) { return c > ' ' && c < 0x7f; });
  if (!fit) return Error(ErrorCode::invalid_argument, "an API key may only hold printable ASCII characters");
  const Digest digest = digest_of(key);
  for (const Key& other : keys_) {
    if (other.digest == digest) return Error(ErrorCode::invalid_argument, "the same API key is given twice");
  }
  if (name.empty()) name = "key-" + std::to_string(keys_.size() + 1);
  keys_.push_back({digest, std::move(name)});
  return {};
}

Result<ApiKeys> ApiKeys::parse(std::string_view text) {
  ApiKeys keys;
  size_t line_number = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    ++line_number;
    const size_t first = line.find_first_not_of(" \t\r");
    if (first == std::string_view::npos || line[first] == '#') continue;
    line = line.substr(first, line.find_last_not_of(" \t\r") - first + 1);
    const size_t blank = line.find_first_of(" \t");
    std::string name;
    if (blank != std::string_view::npos) name = line.substr(line.find_first_not_of(" \t", blank));
    TRY(keys.add(line.substr(0, blank), std::move(name)).with_context("line " + std::to_string(line_number)));
  }
  if (keys.empty()) return Error(ErrorCode::invalid_argument, "there is no key in it");
  return keys;
}

std::optional<std::string> ApiKeys::tenant_of(std::string_view key) const {
  const Digest digest = digest_of(key);
  std::optional<std::string> found;
  for (const Key& known : keys_) {
    if (CRYPTO_memcmp(known.digest.data(), digest.data(), digest.size()) == 0) found = known.name;
  }
  return found;
}

}  // namespace bise
