// What the probes share: the lines they read and write. One JSON object a line in, one or more out,
// each carrying the `id` of its input line; a bad line gets an error and the run goes on. Included
// by the probe sources only, because it brings the JSON library with it.
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "app/options.h"
#include "base/error.h"
#include "base/json.h"
#include "text/tokenizer.h"

namespace bise {

// Writes one answer; the Error is that of stdout.
using Emit = std::function<Result<void>(Json)>;

class Probe {
 public:
  virtual ~Probe() = default;
  // Answers one input line, a JSON object. An Error becomes the line's answer.
  virtual Result<void> answer(const Json& line, const Emit& emit) = 0;
  // The member that is handed over as the bytes that were sent, not as parsed JSON (numbers and
  // duplicate keys would not survive): its text stands in `raw`, null in the line. "" for none.
  virtual const char* raw_member() const { return ""; }
  virtual void set_raw(std::string_view) {}
  // How an Error is written; the usual form is {"error": {message, param, code}}.
  virtual Json error_answer(const Error& error) const;
};

struct ProbeOptions {
  std::string what, model;
  CommonOptions common;
};

// tokenize, encode, parse; nullptr for another word.
Result<std::unique_ptr<Probe>> create_text_probe(const ProbeOptions& options, const Log& log);
// structure; nullptr for another word.
Result<std::unique_ptr<Probe>> create_structure_probe(const ProbeOptions& options, const Log& log);
// logits, generate, image, tensor; nullptr for another word.
Result<std::unique_ptr<Probe>> create_model_probe(const ProbeOptions& options, const Log& log);

// Reads lines from a file descriptor until its end and answers them in order.
Result<void> run_probe(Probe& probe, int input,
                       const std::function<Result<void>(std::string_view)>& write);
// One line of the loop above.
Result<void> answer_line(Probe& probe, std::string line,
                         const std::function<Result<void>(std::string_view)>& write);

// Checked fields of a line. A field that no probe of this kind knows is an Error that lists those
// it does know.
Error bad_field(const std::string& field, const std::string& problem);
Result<void> allow_fields(const Json& line, std::initializer_list<const char*> known);
Result<std::vector<TokenId>> token_ids(const Json& line, const char* key, TokenId vocab_size);
Result<std::vector<std::string>> string_list(const Json& line, const char* key);

// A lone surrogate escape in JSON text becomes \ufffd, as lenient readers do; a pair stays.
void replace_lone_surrogates(std::string& json);

}  // namespace bise
