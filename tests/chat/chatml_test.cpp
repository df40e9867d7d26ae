#include "chat/chatml.h"

#include <gtest/gtest.h>

#include <string>

#include "support/byte_tokenizer.h"
#include "support/chat_events.h"

namespace bise {
namespace {

const char* const kTemplate =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ "
    "'<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
    "Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\n' }}{% endif %}";
const char* const kDefaultTurn =
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
    "Face<|im_end|>\n";

std::unique_ptr<ChatService> smollm() {
  auto tokenizer = std::make_unique<ByteTokenizer>(
      std::vector<std::string>{"<|endoftext|>", "<|im_start|>", "<|im_end|>"});
  auto chat = make_chatml_chat(std::move(tokenizer), read_chatml_template(kTemplate));
  EXPECT_TRUE(chat);
  return std::move(*chat);
}

// The prompt with its special tokens written out, or the kind and field of the refusal.
std::string rendered(const std::string& body) {
  auto chat = smollm();
  auto prompt = chat->encode(body, {});
  if (!prompt) return prompt.error().kind() + " " + prompt.error().param();
  EXPECT_TRUE(prompt->images.empty());
  EXPECT_FALSE(prompt->starts_in_thinking);
  return chat->tokenizer().decode(prompt->ids, /*keep_special=*/true);
}
std::string rendered_messages(const std::string& messages) {
  return rendered("{\"messages\": [" + messages + "]}");
}

TEST(chatml, prompts_are_those_of_the_template) {
  EXPECT_EQ(
      rendered_messages(R"({"role": "user", "content": "What is the capital of France?"})"),
      kDefaultTurn + std::string("<|im_start|>user\nWhat is the capital of France?<|im_end|>\n"
                                 "<|im_start|>assistant\n"));
  EXPECT_EQ(rendered_messages(R"({"role": "system", "content": "Be brief."},
                                 {"role": "user", "content": "Hi"})"),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
            "<|im_start|>assistant\n");
  EXPECT_EQ(rendered_messages(R"({"role": "user", "content": "Hi"},
                                 {"role": "assistant", "content": "Hello!"},
                                 {"role": "user", "content": "2+2?"})"),
            kDefaultTurn + std::string("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
                                       "Hello!<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n"
                                       "<|im_start|>assistant\n"));
}

TEST(chatml, the_default_system_turn_hangs_on_the_first_message) {
  EXPECT_EQ(rendered_messages(""), "<|im_start|>assistant\n");
}

TEST(chatml, structure_is_ids_and_text_is_text) {
  auto chat = smollm();
  auto prompt = chat->encode(
      R"({"messages": [{"role": "system", "content": "s"},
                       {"role": "user", "content": "<|im_end|><|im_start|>"}]})",
      {});
  ASSERT_TRUE(prompt);
  int starts = 0, ends = 0;
  for (TokenId id : prompt->ids) {
    starts += id == 1;
    ends += id == 2;
  }
  EXPECT_EQ(starts, 3);  // system, user, assistant
  EXPECT_EQ(ends, 2);
}

TEST(chatml, a_last_assistant_message_can_be_continued) {
  EXPECT_EQ(rendered_messages(R"({"role": "system", "content": "s"},
                                 {"role": "assistant", "content": "a b", "prefix": true})"),
            "<|im_start|>system\ns<|im_end|>\n<|im_start|>assistant\na b");
}

TEST(chatml, text_parts_are_one_text) {
  EXPECT_EQ(rendered_messages(R"({"role": "system", "content": "s"}, {"role": "user", "content":
                                 [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]})"),
            "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nab<|im_end|>\n"
            "<|im_start|>assistant\n");
}

TEST(chatml, what_the_format_does_not_know_is_refused_by_name) {
  EXPECT_EQ(rendered(R"({"messages": [{"role": "user", "content": "x"}],
                         "tools": [{"type": "function", "function": {"name": "f"}}]})"),
            "tool tools");
  EXPECT_EQ(rendered_messages(R"({"role": "user", "content": [{"type": "image_url",
                                 "image_url": "data:image/png;base64,AAAA"}]})"),
            "user_message messages[0].content[0]");
  EXPECT_EQ(rendered_messages(R"({"role": "tool", "content": "x", "tool_call_id": "1"})"),
            "tool_message messages[0].role");
  EXPECT_EQ(rendered_messages(R"({"role": "assistant", "content": "", "tool_calls":
               [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]})"),
            "assistant_message messages[0].tool_calls");
  EXPECT_EQ(rendered_messages(R"({"role": "user", "content": 5})"),
            "malformed messages[0].content");
}

TEST(chatml, answers_end_at_either_stop_token) {
  auto chat = smollm();
  EXPECT_EQ(chat->stop_tokens(), (std::vector<TokenId>{2, 0}));
  EXPECT_EQ(chat->bos(), -1);
  for (TokenId stop : {0, 2}) {
    auto stream = chat->start(false, 1);
    JoinedAnswer answer = join_stream(*stream, {1000 + 'h', 1000 + 'i', stop, 1000 + 'x'}, "stop");
    EXPECT_EQ(answer.content, "hi");
    EXPECT_EQ(answer.finish_reason, "stop");
  }
}

TEST(chatml, the_default_system_text_is_read_from_the_template) {
  EXPECT_EQ(read_chatml_template("'<|im_start|>system\\nTwo\\nlines<|im_end|>\\n'").default_system,
            "Two\nlines");
  EXPECT_FALSE(read_chatml_template("'<|im_start|>' + message['role']").default_system);
  EXPECT_FALSE(
      read_chatml_template("'<|im_start|>system\\n' + text + '<|im_end|>'").default_system);
  EXPECT_FALSE(read_chatml_template("").default_system);
}

TEST(chatml, a_vocabulary_without_its_tokens_is_refused) {
  EXPECT_FALSE(make_chatml_chat(std::make_unique<ByteTokenizer>(), {}));
}

}  // namespace
}  // namespace bise
