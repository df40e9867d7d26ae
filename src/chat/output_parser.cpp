#include "chat/output_parser.h"

#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "base/random.h"
#include "text/detokenizer.h"
#include "chat/call_list.h"

namespace bise {
namespace {

constexpr std::string_view kBlanks = " \t\r\n";
// Separates the draws of call ids from those of the sampler under the same seed.
constexpr uint64_t kCallIdStream = 0x63616c6c;

bool is_blank(char c) { return kBlanks.find(c) != std::string_view::npos; }

// Names are trimmed of all that Python's strip() takes from ASCII, as the reference does.
constexpr std::string_view kNameBlanks = " \t\n\v\f\r\x1c\x1d\x1e\x1f";

std::string_view trim_name(std::string_view text) {
  size_t first = text.find_first_not_of(kNameBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kNameBlanks) - first + 1);
}

// Finds the end of the first JSON value, without judging what is inside: only strings, escapes and
// depth are followed, so broken JSON passes as the model wrote it.
class JsonExtent {
 public:
  // True when the character belongs to the value.
  bool feed(char c) {
    switch (state_) {
      case State::before:
        if (is_blank(c)) return false;
        if (c == '{' || c == '[') depth_ = 1, state_ = State::inside;
        else if (c == '"') state_ = State::string;
        else state_ = State::bare;
        return true;
      case State::bare: return true;
      case State::inside:
        if (c == '"') state_ = State::string;
        else if (c == '{' || c == '[') ++depth_;
        else if ((c == '}' || c == ']') && --depth_ == 0) state_ = State::done;
        return true;
      case State::string:
        if (c == '\\') state_ = State::escape;
        else if (c == '"') state_ = depth_ == 0 ? State::done : State::inside;
        return true;
      case State::escape: state_ = State::string; return true;
      case State::done: return false;
    }
    return false;
  }
  bool empty() const { return state_ == State::before; }
  // A word or number: it has no end of its own, so blanks at the end are not known to be inside.
  bool bare() const { return state_ == State::bare; }

 private:
  enum class State { before, bare, inside, string, escape, done };
  State state_ = State::before;
  uint64_t depth_ = 0;
};

class OutputParser : public ChatStream {
 public:
  OutputParser(const Tokenizer& tokenizer, const OutputMarkers& markers, bool starts_in_thinking,
               uint64_t seed)
      : tokenizer_(tokenizer),
        markers_(markers),
        state_(starts_in_thinking ? State::think : State::content),
        seed_(seed),
        detokenizer_(tokenizer) {}

  std::vector<ChatEvent> push(TokenId id) override {
    events_.clear();
    if (state_ == State::done) return {};
    if (id >= 0 && id < tokenizer_.vocab_size() && !tokenizer_.is_special(id)) {
      text(detokenizer_.push(id));
    } else {
      text(detokenizer_.flush());
      special(id);
    }
    return std::move(events_);
  }

  std::vector<ChatEvent> finish(const std::string& reason) override {
    events_.clear();
    if (finished_) return {};
    finished_ = true;
    end();
    ChatEvent event;
    event.kind = ChatEvent::Kind::finish;
    event.finish_reason = reason == "stop" && num_calls_ > 0 ? "tool_calls" : reason;
    events_.push_back(std::move(event));
    return std::move(events_);
  }

 private:
  // call_text: a call without a name, whose text is given back as content.
  enum class State { content, think, call_name, call_id, call_args, call_text, done };

  void special(TokenId id) {
    if (id == markers_.eos || id == markers_.other_eos) {
      end();
    } else if (id == markers_.tool_calls) {
      if (state_ != State::content && state_ != State::think) close_call();
      open_call();
    } else if (id == markers_.think) {
      if (state_ == State::content) state_ = State::think;
    } else if (id == markers_.think_end) {
      if (state_ != State::think) return;
      pending_reasoning_.clear();
      state_ = State::content;
      skip_blanks_ = true;
    } else if (id == markers_.call_id) {
      if (state_ == State::call_name) state_ = State::call_id;
    } else if (id == markers_.args) {
      if (state_ == State::call_name || state_ == State::call_id) begin_args();
    }
  }

  void text(std::string_view piece) {
    if (piece.empty()) return;
    switch (state_) {
      case State::content: {
        if (skip_blanks_) {
          size_t first = piece.find_first_not_of(kBlanks);
          if (first == std::string_view::npos) return;
          piece.remove_prefix(first);
          skip_blanks_ = false;
        }
        return add_content(piece);
      }
      case State::think:
        return add_holding_blanks(piece, pending_reasoning_, ChatEvent::Kind::reasoning);
      case State::call_name: return add_name(piece);
      case State::call_args: return add_args(piece);
      case State::call_text: return add_content(piece);
      case State::call_id:
      case State::done: return;
    }
  }

  // Blanks before the first other character wait: a call may follow, and then they are dropped.
  void add_content(std::string_view piece) {
    if (has_content_) return emit(ChatEvent::Kind::content, std::string(piece));
    pending_content_.append(piece);
    if (piece.find_first_not_of(kBlanks) == std::string_view::npos) return;
    has_content_ = true;
    emit(ChatEvent::Kind::content, std::exchange(pending_content_, {}));
  }

  // Passes a piece on, but keeps the blanks at its end until something else follows them.
  void add_holding_blanks(std::string_view piece, std::string& pending, ChatEvent::Kind kind) {
    size_t last = piece.find_last_not_of(kBlanks);
    if (last == std::string_view::npos) {
      pending.append(piece);
      return;
    }
    std::string whole = std::exchange(pending, std::string(piece.substr(last + 1)));
    whole.append(piece.substr(0, last + 1));
    emit(kind, std::move(whole));
  }

  void open_call() {
    if (!has_content_) pending_content_.clear();
    pending_reasoning_.clear();
    state_ = State::call_name;
    name_.clear();
    is_list_.reset();
  }

  // The name ends at a first `{` too; a text that begins with `[` is the old list of calls instead.
  void add_name(std::string_view piece) {
    for (size_t i = 0; i < piece.size(); ++i) {
      if (!is_list_ && kNameBlanks.find(piece[i]) == std::string_view::npos)
        is_list_ = piece[i] == '[';
      if (piece[i] == '{' && !*is_list_) {
        name_.append(piece.substr(0, i));
        begin_args();
        return text(piece.substr(i));
      }
    }
    name_.append(piece);
  }

  void begin_args() {
    std::string_view name = trim_name(name_);
    if (name.empty()) {
      // No client can use a call without a name.
      state_ = State::call_text;
      return add_content(name_);
    }
    state_ = State::call_args;
    args_ = {};
    pending_args_.clear();
    begin_call(std::string(name));
  }

  void add_args(std::string_view piece) {
    size_t first = 0;
    while (first < piece.size() && !args_.feed(piece[first])) ++first;
    size_t end = first;
    while (end < piece.size() && (end == first || args_.feed(piece[end]))) ++end;
    std::string_view inside = piece.substr(first, end - first);
    if (inside.empty()) return;
    if (args_.bare()) {
      add_holding_blanks(inside, pending_args_, ChatEvent::Kind::tool_call_arguments);
    } else {
      emit(ChatEvent::Kind::tool_call_arguments, std::string(inside));
    }
  }

  void close_call() {
    if (state_ == State::call_args && args_.empty()) {
      emit(ChatEvent::Kind::tool_call_arguments, "{}");
    } else if (state_ == State::call_name) {
      std::string_view name = is_list_.value_or(false) ? trim_name(name_) : std::string_view(name_);
      std::optional<std::vector<ListedCall>> calls;
      if (is_list_.value_or(false)) calls = parse_call_list(name);
      if (!calls) return add_content(name);
      for (ListedCall& call : *calls) {
        begin_call(std::move(call.name));
        emit(ChatEvent::Kind::tool_call_arguments, std::move(call.arguments));
      }
    }
  }

  void end() {
    if (state_ == State::done) return;
    text(detokenizer_.flush());
    if (state_ != State::content && state_ != State::think) close_call();
    if (!has_content_) emit(ChatEvent::Kind::content, std::exchange(pending_content_, {}));
    state_ = State::done;
  }

  void begin_call(std::string name) {
    ChatEvent event;
    event.kind = ChatEvent::Kind::tool_call_begin;
    event.call_index = num_calls_++;
    event.call_id = new_call_id();
    event.call_name = std::move(name);
    events_.push_back(std::move(event));
  }

  void emit(ChatEvent::Kind kind, std::string piece) {
    if (piece.empty()) return;
    ChatEvent event;
    event.kind = kind;
    event.text = std::move(piece);
    if (kind == ChatEvent::Kind::tool_call_arguments) event.call_index = num_calls_ - 1;
    events_.push_back(std::move(event));
  }

  // Nine letters and digits, the form that Mistral's own tools insist on.
  std::string new_call_id() {
    constexpr std::string_view kDigits =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    for (;;) {
      uint64_t bits = random_bits(seed_, kCallIdStream, num_ids_drawn_++);
      std::string id;
      for (int i = 0; i < 9; ++i, bits /= kDigits.size()) id += kDigits[bits % kDigits.size()];
      if (call_ids_.insert(id).second) return id;
    }
  }

  const Tokenizer& tokenizer_;
  const OutputMarkers markers_;
  State state_;
  const uint64_t seed_;
  Detokenizer detokenizer_;
  std::vector<ChatEvent> events_;  // of the running push()

  bool has_content_ = false;  // something other than blanks was passed on
  bool skip_blanks_ = false;  // right after [/THINK]
  bool finished_ = false;
  std::string pending_content_, pending_reasoning_, pending_args_;  // blanks, kept for now

  std::string name_;
  std::optional<bool> is_list_;  // once the first character of the name is known
  JsonExtent args_;
  int32_t num_calls_ = 0;
  uint64_t num_ids_drawn_ = 0;
  std::set<std::string> call_ids_;
};

}  // namespace

OutputMarkers mistral_output_markers(const Tokenizer& tokenizer) {
  OutputMarkers markers;
  markers.think = tokenizer.special("[THINK]");
  markers.think_end = tokenizer.special("[/THINK]");
  markers.tool_calls = tokenizer.special("[TOOL_CALLS]");
  markers.args = tokenizer.special("[ARGS]");
  markers.call_id = tokenizer.special("[CALL_ID]");
  markers.eos = tokenizer.special("</s>");
  return markers;
}

std::unique_ptr<ChatStream> create_output_parser(const Tokenizer& tokenizer,
                                                 const OutputMarkers& markers,
                                                 bool starts_in_thinking, uint64_t seed) {
  return std::make_unique<OutputParser>(tokenizer, markers, starts_in_thinking, seed);
}

}  // namespace bise
