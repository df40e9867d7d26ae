#include "app/terminal.h"

#include <gtest/gtest.h>

#include "app/text_format.h"

namespace bise {
namespace {

TEST(Terminal, escape_sequences_of_a_model_do_not_reach_the_terminal) {
  EXPECT_EQ(terminal_safe("a\x1b[31mb"), "a\xEF\xBF\xBD[31mb");
  EXPECT_EQ(terminal_safe("tab\tand\nnewline"), "tab\tand\nnewline");
  EXPECT_EQ(terminal_safe("\xC2\x9B"
                          "2J"),
            "\xEF\xBF\xBD"
            "2J");  // CSI as one C1 character
  EXPECT_EQ(terminal_safe("é 日本 😀"), "é 日本 😀");
  EXPECT_EQ(terminal_safe("\x7F\r"), "\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(Terminal, dimming_emits_only_changes) {
  DimText dim(true);
  EXPECT_EQ(dim.set(false), "");
  EXPECT_EQ(dim.set(true), "\x1b[2m");
  EXPECT_EQ(dim.set(true), "");
  EXPECT_EQ(dim.set(false), "\x1b[0m");
  DimText off(false);
  EXPECT_EQ(off.set(true), "");
}

TEST(TextFormat, sizes_and_counts_are_written_for_people) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(999), "999 B");
  EXPECT_EQ(format_bytes(98362432), "98.4 MB");
  EXPECT_EQ(format_bytes(999999999), "1.0 GB");
  EXPECT_EQ(format_count(7), "7");
  EXPECT_EQ(format_count(134515008), "134,515,008");
  EXPECT_EQ(format_fixed(1.25, 1), "1.2");
}

}  // namespace
}  // namespace bise
