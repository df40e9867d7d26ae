#include "server/http_request_reader.h"

#include <gtest/gtest.h>

namespace bise {
namespace {

using State = HttpRequestReader::State;

HttpReadLimits small_limits() {
  HttpReadLimits limits;
  limits.max_header_bytes = 1024;
  limits.max_headers = 10;
  limits.max_body_bytes = 100;
  return limits;
}

// Feeds all bytes, `step` at a time; returns how many were taken.
size_t feed(HttpRequestReader& reader, const std::string& text, size_t step = 1 << 20) {
  std::string waiting;
  size_t taken = 0;
  for (size_t at = 0; at < text.size() && reader.state() != State::failed; at += step) {
    waiting += text.substr(at, step);
    for (;;) {
      State before = reader.state();
      size_t used = reader.take(waiting);
      waiting.erase(0, used);
      taken += used;
      if (used == 0 && reader.state() == before) break;
      if (reader.state() == State::done) return taken;
    }
  }
  return taken;
}

HttpFault fault_of(const std::string& text) {
  HttpRequestReader reader(small_limits());
  feed(reader, text);
  EXPECT_EQ(reader.state(), State::failed) << text;
  return reader.fault();
}

TEST(HttpRequestReader, reads_the_same_request_whole_and_byte_by_byte) {
  const std::string text =
      "POST /v1/x?a=b HTTP/1.1\r\nHost: h\r\nX-One: 1\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n";
  for (size_t step : {size_t{1}, size_t{7}, text.size()}) {
    HttpRequestReader reader(small_limits());
    const size_t taken = feed(reader, text, step);
    ASSERT_EQ(reader.state(), State::done);
    EXPECT_EQ(text.substr(taken), std::string("GET / HTTP/1.1\r\n").substr(0, text.size() - taken));
    EXPECT_EQ(reader.request().method, "POST");
    EXPECT_EQ(reader.request().path, "/v1/x");
    EXPECT_EQ(reader.request().query, "a=b");
    EXPECT_EQ(reader.request().body, "hello");
    EXPECT_EQ(*reader.request().header("x-one"), "1");
    EXPECT_TRUE(reader.keep_alive());
  }
}

TEST(HttpRequestReader, puts_chunks_together) {
  HttpRequestReader reader(small_limits());
  feed(reader, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 3);
  ASSERT_EQ(reader.state(), State::done);
  EXPECT_EQ(reader.request().body, "abcde");
}

TEST(HttpRequestReader, refuses_a_body_whose_length_is_said_twice) {
  const std::string head = "POST / HTTP/1.1\r\nHost: h\r\n";
  for (const char* lengths : {
           "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
           "Content-Length: 3\r\nContent-Length: 3\r\n", "Content-Length: 3\r\nContent-Length: 4\r\n",
           "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "Content-Length: 3, 3\r\n",
           "Content-Length: -1\r\n", "Content-Length: 0x3\r\n", "Content-Length: +3\r\n"}) {
    EXPECT_EQ(fault_of(head + lengths + "\r\nabc").status, 400) << lengths;
  }
}

TEST(HttpRequestReader, refuses_codings_and_versions_it_does_not_speak) {
  EXPECT_EQ(fault_of("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n").status, 501);
  EXPECT_EQ(fault_of("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n").status, 501);
  EXPECT_GE(fault_of("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n").status, 400);
  EXPECT_EQ(fault_of("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").status, 400);
  EXPECT_EQ(fault_of("GET / HTTP/2.0\r\nHost: h\r\n\r\n").status, 505);
  EXPECT_EQ(fault_of("GET / HTTP/1.1\r\nHost: h\r\nExpect: more\r\n\r\n").status, 417);
}

TEST(HttpRequestReader, refuses_what_is_not_plain_grammar) {
  for (const char* text : {
           "GET / HTTP/1.1\r\n\r\n",                                  // no Host
           "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",            //
           "GET / HTTP/1.1\r\nHost : h\r\n\r\n",                      // blank before the colon
           "GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n",               // a proxy's form
           "GET  / HTTP/1.1\r\nHost: h\r\n\r\n",                      //
           "\x16\x03\x01\x02\x01\r\n\r\n",                            // TLS on a plain port
           "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"}) {
    EXPECT_EQ(fault_of(text).status, 400) << text;
  }
  EXPECT_EQ(fault_of("GET / HTTP/1.1\nHost: h\n\n").status, 505);  // a bare LF: read as part of the version
}

TEST(HttpRequestReader, refuses_what_is_too_large_before_it_is_read) {
  HttpFault fault = fault_of("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 101\r\n\r\n");
  EXPECT_EQ(fault.status, 413);
  EXPECT_NE(fault.message.find("100"), std::string::npos);
  EXPECT_EQ(fault_of("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n80\r\n" + std::string(128, 'x')).status, 413);
  EXPECT_EQ(fault_of("GET / HTTP/1.1\r\nHost: h\r\nX: " + std::string(2000, 'x') + "\r\n\r\n").status, 431);
  EXPECT_EQ(fault_of("GET /" + std::string(4000, 'x')).status, 431);  // a line that never ends
  std::string many = "GET / HTTP/1.1\r\nHost: h\r\n";
  for (int i = 0; i < 12; ++i) many += "X" + std::to_string(i) + ": 1\r\n";
  EXPECT_EQ(fault_of(many + "\r\n").status, 431);
}

}  // namespace
}  // namespace bise
