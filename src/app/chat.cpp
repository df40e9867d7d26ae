// `bise chat`: a conversation in the terminal. Ctrl-C stops an answer, never the program.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <memory>

#include "app/answer.h"
#include "app/answer_writer.h"
#include "app/commands.h"
#include "app/conversation.h"
#include "app/line_editor.h"
#include "app/model_defaults.h"
#include "app/options.h"
#include "app/session.h"
#include "app/terminal.h"
#include "base/file.h"

namespace bise {
namespace {

struct ChatOptions {
  std::string model, reasoning;
  std::optional<std::string> system;
  bool no_system = false;
  SamplingOptions sampling;
  CommonOptions common;
};

constexpr char kHelp[] =
    "  /image FILE            show a picture with the next message; may be repeated\n"
    "  /reasoning high|none   think before answering, or not\n"
    "  /system [TEXT]         set the system prompt; without TEXT remove it\n"
    "  /save FILE             write the conversation as JSON\n"
    "  /clear                 forget the conversation\n"
    "  /help                  this list\n"
    "  /exit                  leave (also Ctrl-D)\n"
    "  A line that ends in \\ goes on in the next one. Ctrl-C stops an answer.\n";

class Chat {
 public:
  Chat(Session& session, const ChatOptions& options) : session_(session), options_(options) {
    reasoning_ = options.reasoning;
  }

  Result<void> start() {
    if (options_.system) {
      conversation_.set_system(*options_.system);
    } else if (!options_.no_system) {
      TRY(apply_default_system(session_, conversation_));
    }
    return set_reasoning(reasoning_);
  }

  // An Error ends the program (stdout is gone); whatever else goes wrong is told and the chat goes
  // on.
  Result<void> loop() {
    LineEditor editor("> ");
    std::string text, line;
    for (;;) {
      clear_interrupt();
      LineEditor::Outcome outcome = editor.read(line);
      if (outcome == LineEditor::Outcome::end) return {};
      if (outcome == LineEditor::Outcome::interrupted) {
        std::fputs("\n(/exit or Ctrl-D leaves)\n", stderr);
        text.clear();
        continue;
      }
      if (!line.empty() && line.back() == '\\') {
        text += line.substr(0, line.size() - 1) + "\n";
        continue;
      }
      text += line;
      std::string message = std::move(text);
      text.clear();
      if (message == "/exit" || message == "/quit") return {};
      if (message.rfind('/', 0) == 0) {
        command(message);
      } else if (!message.empty()) {
        TRY(turn(message));
      }
    }
  }

 private:
  Result<void> set_reasoning(const std::string& effort) {
    reasoning_ = effort;
    conversation_.set_reasoning(effort);
    return check_reasoning(session_, effort);
  }

  void tell(const Result<void>& result, const std::string& done) {
    std::fprintf(stderr, "%s\n",
                 result ? done.c_str() : ("error: " + result.error().message()).c_str());
  }

  void command(const std::string& message) {
    size_t blank = message.find(' ');
    size_t start = message.find_first_not_of(' ', blank);
    std::string word = message.substr(0, blank);
    std::string rest = start == 0 || start == std::string::npos ? "" : message.substr(start);
    while (!rest.empty() && rest.back() == ' ') rest.pop_back();
    if (word == "/image") {
      add_image(rest);
    } else if (word == "/reasoning") {
      bool known = rest == "none" || rest == "high" ||
                   contains(session_.chat.service->reasoning_efforts(), rest);
      tell(known ? set_reasoning(rest)
                 : Error(ErrorCode::invalid_argument, "/reasoning takes none or high"),
           "reasoning: " + rest);
    } else if (word == "/system") {
      conversation_.set_system(rest);
      std::fputs(rest.empty() ? "no system prompt\n" : "system prompt set\n", stderr);
    } else if (word == "/save") {
      tell(save(rest), "saved to " + rest);
    } else if (word == "/clear") {
      conversation_.clear();
      images_.clear();
      std::fputs("conversation forgotten\n", stderr);
    } else if (word == "/help") {
      std::fputs(kHelp, stderr);
    } else {
      std::fprintf(stderr, "error: unknown command %s; /help lists them\n",
                   terminal_safe(word).c_str());
    }
  }

  static bool contains(const std::vector<std::string>& words, const std::string& word) {
    for (const std::string& one : words) {
      if (one == word) return true;
    }
    return false;
  }

  void add_image(const std::string& file) {
    Result<void> checked = [&]() -> Result<void> {
      if (file.empty()) return Error(ErrorCode::invalid_argument, "/image needs a file");
      std::string bytes = TRY(read_picture(file));
      TRY(process_picture(session_, as_bytes(bytes)).with_context(file));
      return {};
    }();
    if (checked) images_.push_back(file);
    tell(checked, file + " goes with the next message");
  }

  Result<void> save(const std::string& file) {
    if (file.empty()) return Error(ErrorCode::invalid_argument, "/save needs a file");
    FileWriter writer = TRY(FileWriter::create(file));
    TRY(writer.write(as_bytes(conversation_.saved_form())));
    return writer.commit();
  }

  Result<void> turn(const std::string& text) {
    conversation_.add_user(text, images_);
    Result<Answer> answer = reply();
    if (!answer) {
      conversation_.drop_last();
      if (answer.error().code() == ErrorCode::io) return std::move(answer).error();
      tell(Result<void>(answer.error()), "");
      return {};
    }
    images_.clear();
    conversation_.add_assistant(answer->content, answer->reasoning);
    if (answer->was_interrupted) std::fputs("(stopped)\n", stderr);
    if (answer->finish_reason == "length")
      std::fputs("(the answer ends at its length limit)\n", stderr);
    return {};
  }

  Result<Answer> reply() {
    bool reasoning = !reasoning_.empty() && reasoning_ != "none";
    SamplingParams params =
        TRY(sampling_params(options_.sampling, session_.generation_config, reasoning));
    params.stop_tokens = session_.stop_tokens;
    Prompt prompt = TRY(encode_conversation(session_, conversation_));
    AnswerWriter writer;
    return generate_answer(session_, prompt, params,
                           [&writer](const ChatEvent& event) { return writer(event); });
  }

  Session& session_;
  const ChatOptions& options_;
  Conversation conversation_;
  std::string reasoning_;
  std::vector<std::string> images_;
};

Result<int> chat(const ChatOptions& options) {
  handle_signals(InterruptRule::never_exit);
  std::unique_ptr<Session> session =
      TRY(open_session(options.model, {options.common, true}, make_log(options.common.log_level)));
  Chat conversation(*session, options);
  TRY(conversation.start());
  if (stdin_is_terminal()) {
    std::fprintf(stderr, "%s, %s. /help lists the commands.\n", session->path.c_str(),
                 session->chat.service->format_name().c_str());
  }
  TRY(conversation.loop());
  return kExitDone;
}

}  // namespace

void add_chat_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<ChatOptions>();
  CLI::App* command = app.add_subcommand("chat", "a conversation in the terminal");
  command->add_option("MODEL", options->model, "the model")->required();
  CLI::Option* system =
      command->add_option("--system", options->system,
                          "system prompt (default: SYSTEM_PROMPT.txt of the model folder, if any)");
  command->add_flag("--no-system", options->no_system, "no system prompt of ours")
      ->excludes(system);
  command->add_option("--reasoning", options->reasoning, "reasoning effort (default: not sent)")
      ->check(CLI::IsMember({"none", "minimal", "low", "medium", "high", "xhigh", "max"}));
  add_sampling_options(*command, options->sampling);
  add_common_options(*command, options->common);
  command->footer(std::string("Commands in the conversation:\n") + kHelp);
  command->callback([options, &action] { action = [options] { return chat(*options); }; });
}

}  // namespace bise
