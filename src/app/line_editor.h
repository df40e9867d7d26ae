// One line of input after another: edited with history (libedit) where a person types, plain where
// input comes from a file or a pipe.
#pragma once

#include <memory>
#include <optional>
#include <string>

namespace bise {

class LineEditor {
 public:
  explicit LineEditor(std::string prompt);
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  enum class Outcome { line, end, interrupted };
  // The line without its newline.
  Outcome read(std::string& line);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace bise
