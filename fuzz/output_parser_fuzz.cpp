// Any ids at all through the output parser: nothing crashes, every text is whole characters, call
// ids are distinct, and what is joined does not depend on how the texts were cut into tokens.
#include <cstdlib>
#include <string>
#include <vector>

#include "../tests/support/byte_tokenizer.h"
#include "../tests/support/chat_events.h"
#include "chat/output_parser.h"

namespace {

using namespace bise;

// Byte 0..31 of the input: a special id; every other byte stands for itself. Byte 127 begins a
// number of bytes that come as one token in the second run.
constexpr TokenId kSpecials[] = {2, 9, 32, 33, 34, 35, 4, 1};

struct Input {
  std::vector<TokenId> ids;   // one byte a token
  std::vector<TokenId> runs;  // the same, but longer tokens here and there
};

Input read_input(ByteTokenizer& tokenizer, const uint8_t* data, size_t size) {
  Input input;
  std::string run;
  size_t run_left = 0;
  auto end_run = [&] {
    if (!run.empty()) input.runs.push_back(tokenizer.add(run));
    run.clear();
    run_left = 0;
  };
  for (size_t i = 0; i < size; ++i) {
    uint8_t byte = data[i];
    bool is_blank = byte == '\n' || byte == '\t' || byte == '\r';
    if (byte < 32 && !is_blank) {
      end_run();
      input.ids.push_back(kSpecials[byte % 8]);
      input.runs.push_back(kSpecials[byte % 8]);
    } else if (byte == 127) {
      end_run();
      run_left = i + 1 < size ? data[i + 1] % 16 : 0;
    } else {
      input.ids.push_back(ByteTokenizer::kFirstByte + byte);
      if (run_left == 0) {
        input.runs.push_back(ByteTokenizer::kFirstByte + byte);
        continue;
      }
      run.push_back(static_cast<char>(byte));
      if (--run_left == 0) end_run();
    }
  }
  end_run();
  return input;
}

void require(bool condition) {
  if (!condition) std::abort();
}

JoinedAnswer parse(const ByteTokenizer& tokenizer, const std::vector<TokenId>& ids, bool thinking) {
  auto stream = create_output_parser(tokenizer, mistral_output_markers(tokenizer), thinking, 1);
  JoinedAnswer answer = join_stream(*stream, ids, "stop");
  require(answer.broken_rule.empty());
  return answer;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  ByteTokenizer tokenizer;
  Input input = read_input(tokenizer, data + 1, size - 1);
  bool thinking = data[0] % 2 == 1;
  JoinedAnswer one = parse(tokenizer, input.ids, thinking);
  JoinedAnswer other = parse(tokenizer, input.runs, thinking);
  require(one.content == other.content && one.reasoning == other.reasoning);
  require(one.finish_reason == other.finish_reason && one.calls.size() == other.calls.size());
  for (size_t i = 0; i < one.calls.size(); ++i) {
    require(one.calls[i].name == other.calls[i].name);
    require(one.calls[i].arguments == other.calls[i].arguments);
  }
  return 0;
}
