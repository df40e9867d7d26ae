#include "server/address_rules.h"

#include <gtest/gtest.h>

namespace bise {
namespace {

IpAddress address(const std::string& text) { return parse_network(text).value().address; }

TEST(AddressRules, public_addresses_are_public) {
  for (const char* text : {"8.8.8.8", "1.1.1.1", "93.184.216.34", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1", "223.255.255.255",
                           "192.0.1.1", "168.63.129.15", "2606:4700:4700::1111", "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"}) {
    EXPECT_TRUE(is_public_address(address(text))) << text;
  }
}

TEST(AddressRules, special_addresses_are_not_in_whatever_form) {
  for (const char* text :
       {"127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "100.100.100.200", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.19.255.255", "224.0.0.1", "239.1.1.1", "240.0.0.1",
        "255.255.255.255", "168.63.129.16",
        "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "2001:db8::1", "2002:7f00:1::1", "2001::1", "3fff::1", "100::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::1"}) {
    EXPECT_FALSE(is_public_address(address(text))) << text;
  }
}

TEST(AddressRules, networks_hold_what_their_leading_bits_say) {
  EXPECT_TRUE(parse_network("10.0.0.0/8")->contains(address("10.255.0.1")));
  EXPECT_FALSE(parse_network("10.0.0.0/8")->contains(address("11.0.0.1")));
  EXPECT_TRUE(parse_network("10.1.2.3")->contains(address("::ffff:10.1.2.3")));
  EXPECT_FALSE(parse_network("10.1.2.3")->contains(address("10.1.2.2")));
  EXPECT_TRUE(parse_network("172.16.0.0/12")->contains(address("172.31.0.1")));
  EXPECT_FALSE(parse_network("172.16.0.0/12")->contains(address("172.32.0.1")));
  EXPECT_TRUE(parse_network("fd00::/8")->contains(address("fdff::1")));
  EXPECT_FALSE(parse_network("0.0.0.0/0")->contains(address("::1")));
  EXPECT_TRUE(parse_network("::/0")->contains(address("127.0.0.1")));
}

TEST(AddressRules, what_is_no_network_is_refused) {
  for (const char* text : {"", "10", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/x", "10.0.0.0/-1", "fd00::/129", "host", "10.0.0.0/8/8", "010.0.0.1"}) {
    EXPECT_FALSE(parse_network(text)) << text;
  }
}

}  // namespace
}  // namespace bise
