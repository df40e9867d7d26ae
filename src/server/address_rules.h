// Which addresses the server may connect to for a client: public ones, and networks that the operator
// names. A picture's URL comes from a stranger; behind a name he chose there may be the cloud's metadata
// service or a printer in the cellar, so what counts is the address of the connection, not the name.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace bise {

// IPv4 addresses are kept as IPv6 writes them (::ffff:a.b.c.d), so that both forms are one.
using IpAddress = std::array<uint8_t, 16>;
IpAddress from_ipv4(std::span<const uint8_t, 4> bytes);

struct IpNetwork {
  IpAddress address{};
  int prefix = 128;  // leading bits that count, of 128
  bool contains(const IpAddress& other) const;
};
// "10.0.0.0/8", "fd00::/8", or one address. Error names the text.
Result<IpNetwork> parse_network(std::string_view text);

// Whether the address is one of the internet at large: not private, loopback, link-local, multicast,
// documentation or otherwise special (IANA's registries), and no other way to write one of these.
bool is_public_address(const IpAddress& address);

}  // namespace bise
