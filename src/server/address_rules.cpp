#include "server/address_rules.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>

namespace bise {
namespace {

constexpr std::array<uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};
constexpr std::array<uint8_t, 12> kNat64 = {0, 0x64, 0xFF, 0x9B};  // 64:ff9b::/96, RFC 6052

// IANA's registry of special IPv4 addresses, and what clouds put beside it.
constexpr const char* kSpecialIpv4[] = {
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
    "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    "168.63.129.16/32",  // looks public; Azure's machines reach their host there
};
// Of 2000::/3, which holds all public IPv6 addresses: protocol assignments with Teredo, documentation,
// 6to4 (which carries an IPv4 address of anybody's choice).
constexpr const char* kSpecialIpv6[] = {"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"};

std::vector<IpNetwork> parsed(std::span<const char* const> texts) {
  std::vector<IpNetwork> out;
  for (const char* text : texts) out.push_back(parse_network(text).value());
  return out;
}

bool is_in(const std::vector<IpNetwork>& networks, const IpAddress& address) {
  return std::any_of(networks.begin(), networks.end(), [&](const IpNetwork& n) { return n.contains(address); });
}

}  // namespace

IpAddress from_ipv4(std::span<const uint8_t, 4> bytes) {
  IpAddress out{};
  std::copy(kMapped.begin(), kMapped.end(), out.begin());
  std::copy(bytes.begin(), bytes.end(), out.begin() + 12);
  return out;
}

bool IpNetwork::contains(const IpAddress& other) const {
  for (int i = 0; i < 16; ++i) {
    const int bits = std::clamp(prefix - 8 * i, 0, 8);
    const auto mask = static_cast<uint8_t>(0xFF00 >> bits);
    const auto at = static_cast<size_t>(i);
    if ((address[at] & mask) != (other[at] & mask)) return false;
  }
  return true;
}

Result<IpNetwork> parse_network(std::string_view text) {
  const Error fault(ErrorCode::invalid_argument, "\"" + std::string(text.substr(0, 80)) +
                                                     "\" is no network; expected an address and its leading bits, such as 10.0.0.0/8 or fd00::/8");
  const size_t slash = text.find('/');
  const std::string address(text.substr(0, slash));
  IpNetwork out;
  uint8_t four[4];
  int most = 128;
  if (inet_pton(AF_INET, address.c_str(), four) == 1) {
    out.address = from_ipv4(four);
    most = 32;
  } else if (inet_pton(AF_INET6, address.c_str(), out.address.data()) != 1) {
    return fault;
  }
  int prefix = most;
  if (slash != std::string_view::npos) {
    const char* end = text.data() + text.size();
    const auto read = std::from_chars(text.data() + slash + 1, end, prefix);
    if (read.ec != std::errc() || read.ptr != end || prefix < 0 || prefix > most) return fault;
  }
  out.prefix = prefix + (128 - most);
  return out;
}

bool is_public_address(const IpAddress& address) {
  static const std::vector<IpNetwork> special4 = parsed(kSpecialIpv4), special6 = parsed(kSpecialIpv6);
  static const IpNetwork global = parse_network("2000::/3").value();
  if (std::equal(kMapped.begin(), kMapped.end(), address.begin())) return !is_in(special4, address);
  if (std::equal(kNat64.begin(), kNat64.end(), address.begin())) {
    return !is_in(special4, from_ipv4(std::span(address).last<4>()));
  }
  return global.contains(address) && !is_in(special6, address);
}

}  // namespace bise
