#include "app/conversation.h"

#include <gtest/gtest.h>

#include "base/json.h"

namespace bise {
namespace {

Json body(const Conversation& conversation) { return *parse_json(conversation.request_body()); }

TEST(Conversation, turns_are_resent_in_order_behind_the_system_message) {
  Conversation conversation;
  conversation.add_user("Hi", {});
  conversation.add_assistant("Hello!", "");
  conversation.set_system("Be brief.");
  conversation.add_user("2+2?", {});
  Json messages = body(conversation)["messages"];
  ASSERT_EQ(messages.size(), 4u);
  EXPECT_EQ(messages[0], (Json{{"role", "system"}, {"content", "Be brief."}}));
  EXPECT_EQ(messages[1], (Json{{"role", "user"}, {"content", "Hi"}}));
  EXPECT_EQ(messages[2], (Json{{"role", "assistant"}, {"content", "Hello!"}}));
  EXPECT_EQ(messages[3]["content"], "2+2?");
}

TEST(Conversation, reasoning_is_sent_back_with_its_answer) {
  Conversation conversation;
  conversation.set_reasoning("high");
  conversation.add_user("q", {});
  conversation.add_assistant("a", "because");
  Json json = body(conversation);
  EXPECT_EQ(json["reasoning_effort"], "high");
  EXPECT_EQ(json["messages"][1]["reasoning_content"], "because");
}

TEST(Conversation, pictures_come_before_the_text_as_file_urls) {
  Conversation conversation;
  conversation.add_user("What is it?", {"/tmp/a b.png"});
  Json content = body(conversation)["messages"][0]["content"];
  ASSERT_EQ(content.size(), 2u);
  EXPECT_EQ(content[0]["image_url"]["url"], "file:///tmp/a b.png");
  EXPECT_EQ(content[1]["text"], "What is it?");
}

TEST(Conversation, clear_keeps_the_system_message_and_drop_last_undoes_one_turn) {
  Conversation conversation;
  conversation.set_system("s");
  conversation.add_user("one", {});
  conversation.add_user("two", {});
  conversation.drop_last();
  EXPECT_EQ(conversation.num_messages(), 1u);
  conversation.clear();
  EXPECT_EQ(body(conversation)["messages"].size(), 1u);
  conversation.set_system("");
  EXPECT_EQ(body(conversation)["messages"].size(), 0u);
}

TEST(Conversation, a_default_system_prompt_may_be_a_list_of_parts) {
  Conversation conversation;
  ASSERT_TRUE(conversation.set_system_content(R"([{"type":"text","text":"x"}])"));
  EXPECT_EQ(body(conversation)["messages"][0]["content"][0]["text"], "x");
  EXPECT_FALSE(conversation.set_system_content("{"));
}

TEST(Conversation, bytes_that_are_no_text_do_not_break_the_body) {
  Conversation conversation;
  conversation.add_user(
      "a\xFF"
      "b",
      {});
  EXPECT_TRUE(parse_json(conversation.request_body()));
}

}  // namespace
}  // namespace bise
