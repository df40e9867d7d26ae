// `bise run`: one answer, streamed.
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "app/answer.h"
#include "app/answer_writer.h"
#include "app/commands.h"
#include "app/conversation.h"
#include "app/model_defaults.h"
#include "app/options.h"
#include "app/session.h"
#include "app/terminal.h"
#include "base/file.h"
#include "base/json.h"

namespace bise {
namespace {

struct RunOptions {
  std::string model;
  std::optional<std::string> prompt, system;
  std::vector<std::string> images;
  bool no_system = false, raw = false, json = false;
  std::string reasoning, tools_file;
  SamplingOptions sampling;
  CommonOptions common;
};

Result<std::string> read_stdin() {
  constexpr size_t kMaxBytes = size_t{64} << 20;
  std::string text;
  char buffer[1 << 16];
  for (;;) {
    ssize_t got = read(STDIN_FILENO, buffer, sizeof(buffer));
    if (interrupted()) return Error(ErrorCode::cancelled, "interrupted");
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      return Error(ErrorCode::io, std::string("cannot read standard input: ") + strerror(errno));
    if (got == 0) return text;
    text.append(buffer, static_cast<size_t>(got));
    if (text.size() > kMaxBytes) {
      return Error(ErrorCode::too_large, "the prompt on standard input is larger than 64 MiB");
    }
  }
}

Result<std::string> prompt_text(const RunOptions& options) {
  if (options.prompt && *options.prompt != "-") return *options.prompt;
  if (!options.prompt && stdin_is_terminal()) {
    return Error(ErrorCode::invalid_argument,
                 "no prompt: give one with -p TEXT, or -p - to read standard input");
  }
  return read_stdin();
}

std::string answer_json(const Session& session, const Answer& answer, const Speed& speed,
                        uint64_t seed) {
  Json calls = Json::array();
  for (const AnswerCall& call : answer.tool_calls) {
    calls.push_back({{"id", call.id},
                     {"type", "function"},
                     {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
  }
  Json json = {{"model", session.path},
               {"content", answer.content},
               {"reasoning", answer.reasoning.empty() ? Json() : Json(answer.reasoning)},
               {"tool_calls", calls},
               {"finish_reason", answer.finish_reason},
               {"seed", seed}};
  json["usage"] = {{"prompt_tokens", speed.prompt_tokens},
                   {"completion_tokens", speed.generated_tokens},
                   {"total_tokens", speed.prompt_tokens + speed.generated_tokens}};
  json["timings"] = {{"load_s", speed.load_s},
                     {"prefill_s", speed.prefill_s},
                     {"decode_s", speed.decode_s},
                     {"prefill_tok_s", speed.prompt_per_s},
                     {"decode_tok_s", speed.generated_per_s},
                     {"decode_gb_s", speed.gb_per_s},
                     {"read_gb_s", speed.read_gb_per_s},
                     {"peak_memory_bytes", speed.peak_memory_bytes}};
  if (speed.streamed_bytes > 0) {
    json["streaming"] = {{"bytes_per_token", speed.streamed_bytes},
                         {"disk_gb_s", speed.disk_gb_per_s},
                         {"expected_s_per_token", speed.expected_s},
                         {"seen_s_per_token", speed.seen_s}};
  }
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<Prompt> chat_prompt(const RunOptions& options, const Session& session,
                           const std::string& text, Conversation conversation) {
  if (options.system) {
    conversation.set_system(*options.system);
  } else if (!options.no_system) {
    TRY(apply_default_system(session, conversation));
  }
  TRY(check_reasoning(session, options.reasoning));
  conversation.set_reasoning(options.reasoning);
  conversation.add_user(text, options.images);
  return encode_conversation(session, conversation);
}

// With the tools of --tools: what is wrong with them is said before the model is loaded.
Result<Conversation> conversation_with_tools(const RunOptions& options) {
  Conversation conversation;
  if (options.tools_file.empty()) return conversation;
  constexpr uint64_t kMaxToolsBytes = uint64_t{16} << 20;
  std::string tools = TRY(read_file(options.tools_file, kMaxToolsBytes));
  if (auto read = conversation.set_tools(tools); !read) {
    return Error(ErrorCode::invalid_argument, options.tools_file + ": " + read.error().message());
  }
  return conversation;
}

Result<int> run(const RunOptions& options) {
  std::string text = TRY(prompt_text(options));
  Conversation conversation = TRY(conversation_with_tools(options));
  for (const std::string& file : options.images)
    TRY(read_picture(file));  // before the model is loaded
  Log log = make_log(options.common.log_level);
  std::unique_ptr<Session> session = TRY(open_session(options.model, {options.common, true}, log));
  bool reasoning = !options.reasoning.empty() && options.reasoning != "none";
  SamplingParams params =
      TRY(sampling_params(options.sampling, session->generation_config, reasoning));
  params.stop_tokens = session->stop_tokens;
  EventSink sink;
  AnswerWriter writer;
  if (!options.json) sink = [&writer](const ChatEvent& event) { return writer(event); };
  Result<Answer> answer = Error(ErrorCode::internal, "");
  if (options.raw) {
    std::vector<TokenId> ids = raw_prompt(*session, text);
    answer = generate_raw(*session, std::move(ids), params, sink);
    if (answer && !options.json) TRY(write_output("\n"));
  } else {
    Prompt prompt = TRY(chat_prompt(options, *session, text, std::move(conversation)));
    answer = generate_answer(*session, std::move(prompt), params, sink);
  }
  if (!answer) return std::move(answer).error();
  if (answer->was_interrupted) return Error(ErrorCode::cancelled, "interrupted");
  Speed speed = measure_speed(*session, answer->generated);
  if (options.json) TRY(write_output(answer_json(*session, *answer, speed, params.seed)));
  std::fprintf(stderr, "%s\n", speed_line(speed).c_str());
  return kExitDone;
}

}  // namespace

void add_run_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* command = app.add_subcommand("run", "one answer, streamed to stdout");
  command->add_option("MODEL", options->model, "the model")->required();
  command->add_option("-p,--prompt", options->prompt, "the prompt; - reads standard input");
  CLI::Option* image = command
                           ->add_option("--image", options->images,
                                        "a picture (JPEG, PNG, WebP, GIF, BMP); may be repeated")
                           ->allow_extra_args(false);
  CLI::Option* system =
      command->add_option("--system", options->system,
                          "system prompt (default: SYSTEM_PROMPT.txt of the model folder, if any)");
  command->add_flag("--no-system", options->no_system, "no system prompt of ours")
      ->excludes(system);
  command
      ->add_option(
          "--reasoning", options->reasoning,
          "reasoning effort: none or high, or another word that the tokenizer lists (default: "
          "not sent)")
      ->check(CLI::IsMember({"none", "minimal", "low", "medium", "high", "xhigh", "max"}));
  CLI::Option* tools = command->add_option(
      "--tools", options->tools_file,
      "a JSON file with a list of tools in OpenAI's form; calls are printed, not made");
  command->add_flag("--raw", options->raw, "continue the text as it is, without the chat format")
      ->excludes(image)
      ->excludes(tools)
      ->excludes(system);
  command->add_flag("--json", options->json, "print one JSON object when the answer is whole");
  add_sampling_options(*command, options->sampling);
  add_common_options(*command, options->common);
  command->footer(
      "Reasoning is shown dimmed on a terminal, under `reasoning` with --json, and left out of "
      "pipes.\n"
      "The last line on stderr: tokens and tok/s of prompt and answer, GB/s read by decoding and "
      "its\n"
      "share of the read bandwidth measured right after, peak memory.");
  command->callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace bise
