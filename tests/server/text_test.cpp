// The small rooms between deltas and the wire: JSON, keys.
#include <gtest/gtest.h>

#include "server/api_keys.h"
#include "server/json_writer.h"

namespace bise {
namespace {

TEST(JsonWriter, writes_values_in_order_with_commas_between) {
  std::string out;
  JsonWriter json(out);
  json.begin_object().field("a", 1).key("b").begin_array().value(true).null().value("x").value(0.5).end_array();
  json.key("c").begin_object().end_object().field("d", std::string("y")).end_object();
  EXPECT_EQ(out, R"({"a":1,"b":[true,null,"x",0.5],"c":{},"d":"y"})");
}

TEST(JsonWriter, escapes_what_clients_split_lines_at_and_repairs_bad_bytes) {
  std::string out;
  append_json_string(out, "q\"\\\n\x01\x7f \xC2\x85\xE2\x80\xA8\xE2\x80\xA9\xE2\x80\xA6");
  EXPECT_EQ(out, "\"q\\\"\\\\\\n\\u0001\\u007f \\u0085\\u2028\\u2029\xE2\x80\xA6\"");
  out.clear();
  append_json_string(out, "a\xFF");
  EXPECT_EQ(out, "\"a\xEF\xBF\xBD\"");
  out.clear();
  append_json_number(out, 1.0 / 0.0);
  EXPECT_EQ(out, "null");
}

TEST(ApiKeys, names_the_holder_of_a_key) {
  auto keys = ApiKeys::parse("# who may\n\n  secret-one alice\r\nsecret-two\n");
  ASSERT_TRUE(keys);
  EXPECT_EQ(keys->tenant_of("secret-one").value_or(""), "alice");
  EXPECT_EQ(keys->tenant_of("secret-two").value_or(""), "key-2");
  EXPECT_FALSE(keys->tenant_of("secret-on"));
  EXPECT_FALSE(keys->tenant_of("secret-one "));
  EXPECT_FALSE(keys->tenant_of(""));
}

TEST(ApiKeys, refuses_files_that_protect_nothing) {
  EXPECT_FALSE(ApiKeys::parse("\n# only a comment\n"));
  EXPECT_FALSE(ApiKeys::parse("short"));
  EXPECT_FALSE(ApiKeys::parse("the-same-key a\nthe-same-key b"));
}

}  // namespace
}  // namespace bise
