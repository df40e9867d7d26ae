#include "app/line_editor.h"

#include <histedit.h>
#include <langinfo.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <cstdio>
#include <cstring>

#include "app/terminal.h"

namespace bise {

struct LineEditor::State {
  std::string prompt;
  EditLine* editor = nullptr;  // nullptr: not a terminal
  History* history = nullptr;
  HistEvent event = {};
  bool ended = false;
};

namespace {

// libedit asks for the prompt through this; the text hangs on the editor.
char* prompt_of(EditLine* editor) {
  void* text = nullptr;
  el_get(editor, EL_CLIENTDATA, &text);
  return static_cast<char*>(text);
}

// libedit reads characters by the locale; what we read and write is UTF-8 everywhere.
void choose_utf8() {
  std::setlocale(LC_CTYPE, "");
  if (std::strcmp(nl_langinfo(CODESET), "UTF-8") != 0) std::setlocale(LC_CTYPE, "C.UTF-8");
}

}  // namespace

LineEditor::LineEditor(std::string prompt) : state_(std::make_unique<State>()) {
  constexpr int kHistoryLines = 1000;
  State& s = *state_;
  s.prompt = std::move(prompt);
  if (!stdin_is_terminal() || !stdout_is_terminal()) return;
  choose_utf8();
  s.editor = el_init("bise", stdin, stdout, stderr);
  if (s.editor == nullptr) return;
  s.history = history_init();
  if (s.history != nullptr) {
    history(s.history, &s.event, H_SETSIZE, kHistoryLines);
    history(s.history, &s.event, H_SETUNIQUE, 1);
    el_set(s.editor, EL_HIST, history, s.history);
  }
  el_set(s.editor, EL_CLIENTDATA, s.prompt.data());
  el_set(s.editor, EL_PROMPT, prompt_of);
  el_set(s.editor, EL_EDITOR, "emacs");
  el_set(s.editor, EL_BIND, "^R", "em-inc-search-prev", nullptr);
  el_source(s.editor, nullptr);  // the user's ~/.editrc
}

LineEditor::~LineEditor() {
  if (state_->history != nullptr) history_end(state_->history);
  if (state_->editor != nullptr) el_end(state_->editor);
}

LineEditor::Outcome LineEditor::read(std::string& line) {
  State& s = *state_;
  line.clear();
  if (s.editor != nullptr) {
    int count = 0;
    const char* text = el_gets(s.editor, &count);
    if (interrupted()) return Outcome::interrupted;
    if (text == nullptr || count <= 0) return Outcome::end;
    line.assign(text, static_cast<size_t>(count));
    while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
    if (!line.empty() && s.history != nullptr) history(s.history, &s.event, H_ENTER, line.c_str());
    return Outcome::line;
  }
  if (s.ended) return Outcome::end;
  for (;;) {
    char c = 0;
    ssize_t got = ::read(STDIN_FILENO, &c, 1);
    if (interrupted()) return Outcome::interrupted;
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      s.ended = true;
      return line.empty() ? Outcome::end : Outcome::line;
    }
    if (c == '\n') return Outcome::line;
    if (c != '\r') line += c;
  }
}

}  // namespace bise
