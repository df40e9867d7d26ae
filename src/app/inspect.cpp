// `bise inspect`: what a model is, from its tables only; no weights are loaded. A model of another
// architecture is described as far as its tables go, and the answer says that it cannot run.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <map>
#include <memory>

#include "app/commands.h"
#include "app/model_files.h"
#include "app/model_source.h"
#include "app/options.h"
#include "app/terminal.h"
#include "app/text_format.h"
#include "base/json.h"
#include "io/checkpoint.h"
#include "model/model_config.h"
#include "tensor/weight_format.h"

namespace bise {
namespace {

struct InspectOptions {
  std::string model;
  bool tensors = false, json = false;
  CommonOptions common;
};

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}
bool starts_with(const std::string& text, const char* start) { return text.rfind(start, 0) == 0; }
bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// Scales and other companions of a quantised matrix: bytes, but no parameters.
bool is_companion(const std::string& name) {
  for (const char* end :
       {".weight_scale_inv", ".weight_scale", ".activation_scale", ".input_scale", ".qscale_weight",
        ".qscale_act", ".scales", ".biases", ".scale", ".weight_global_scale", ".weight_scale_2",
        ".input_global_scale", ".weight_zero_point", ".weight_shape", ".weight_g_idx", ".qzeros",
        ".g_idx"}) {
    if (ends_with(name, end)) return true;
  }
  return contains(name, "fake_quantizer");
}

// The part of the model that a tensor belongs to, by its name in any of the layouts.
const char* group_of(const std::string& name) {
  if (contains(name, "multi_modal_projector") || starts_with(name, "mm.") ||
      contains(name, "patch_merger") || contains(name, "vision_language_adapter") ||
      contains(name, "pre_mm_projector_norm")) {
    return "projector";
  }
  if (contains(name, "vision") || starts_with(name, "v.")) return "vision tower";
  if (contains(name, "lm_head") || starts_with(name, "output.")) return "head";
  if (contains(name, "embed_tokens") || contains(name, "tok_embeddings") ||
      contains(name, "token_embd")) {
    return "embedding";
  }
  if (contains(name, "norm")) return "norms";
  if (contains(name, "attn") || contains(name, "attention")) return "attention";
  if (contains(name, "mlp") || contains(name, "ffn") || contains(name, "feed_forward"))
    return "feed-forward";
  return "other";
}

// What a tensor holds.
struct Content {
  std::string format;  // "Q4_1", "BF16", "INT4 g128": the words of the format registry
  uint64_t parameters = 0;
};

std::string type_of(const TensorView& tensor) {
  if (tensor.dtype == DType::block) {
    const WeightFormat* format = weight_format_of_ggml(tensor.ggml_type);
    return format != nullptr ? std::string(format->name)
                             : "ggml type " + std::to_string(tensor.ggml_type) + " (unknown)";
  }
  return std::string(dtype_name(tensor.dtype));
}

// The codes of a matrix count as its weights, whatever they are packed into.
Content content_of(const Checkpoint& checkpoint, const TensorView& tensor) {
  if (is_companion(tensor.name)) return {type_of(tensor), 0};
  std::string matrix = tensor.name;
  for (const char* packed : {".weight_packed", ".qweight"}) {
    if (!ends_with(matrix, packed)) continue;
    matrix = matrix.substr(0, matrix.size() - std::string(packed).size()) + ".weight";
  }
  if (tensor.shape.size() == 2 && ends_with(matrix, ".weight")) {
    auto view = checkpoint.weight_layout(matrix);
    if (view) {
      return {describe_format(*view),
              static_cast<uint64_t>(view->rows) * static_cast<uint64_t>(view->columns)};
    }
  }
  return {type_of(tensor), static_cast<uint64_t>(tensor.num_elements())};
}

struct Part {
  uint64_t tensors = 0, parameters = 0, bytes = 0;
};

struct Report {
  std::string path;
  std::string layout;
  std::vector<std::string> files;
  std::optional<ModelConfig> config;
  std::string not_runnable;  // why
  uint64_t parameters = 0, bytes = 0;
  std::map<std::string, std::map<std::string, Part>> groups;  // group -> format -> part
  std::string chat_format;
  std::string chat_problem;
  std::vector<std::string> warnings;
};

constexpr const char* kGroupOrder[] = {"embedding", "attention",    "feed-forward", "norms",
                                       "head",      "vision tower", "projector",    "other"};

void count_tensors(const Checkpoint& checkpoint, Report& report) {
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    const Content content = content_of(checkpoint, tensor);
    Part& part = report.groups[group_of(name)][is_companion(name) ? "scales" : content.format];
    ++part.tensors;
    part.bytes += tensor.bytes.size();
    report.bytes += tensor.bytes.size();
    part.parameters += content.parameters;
    report.parameters += content.parameters;
  }
}

// What a folder lacks or has twice, beyond what opening it already refuses.
void check_folder(const Checkpoint& checkpoint, Report& report) {
  bool hf = !checkpoint.file_path("config.json").empty();
  bool mistral = !checkpoint.file_path("params.json").empty();
  if (checkpoint.layout() != Layout::gguf && hf && mistral) {
    report.warnings.push_back(
        std::string("the folder holds both config.json and params.json; the ") + report.layout +
        " layout was read (--layout chooses)");
  }
  if (checkpoint.layout() == Layout::hf && checkpoint.file_path("generation_config.json").empty()) {
    report.warnings.push_back(
        "generation_config.json is missing: sampling defaults are the model card's");
  }
  if (checkpoint.layout() != Layout::gguf && checkpoint.file_path("tekken.json").empty()) {
    report.warnings.push_back("tekken.json is missing: without it text cannot be read or written");
  }
  if (report.config && !report.config->vision && report.groups.count("vision tower") != 0) {
    report.warnings.push_back(
        "the files hold a vision tower, but the configuration has none: pictures are refused");
  }
}

Result<Report> inspect_model(const InspectOptions& options, const Log& log) {
  Report report;
  report.path = TRY(resolve_model(options.model, model_places_from_environment()));
  Checkpoint checkpoint = TRY(open_checkpoint(report.path, options.common, log));
  report.layout = layout_name(checkpoint.layout());
  report.files = checkpoint.files();
  count_tensors(checkpoint, report);
  auto config = read_model_config(checkpoint, config_options(options.common), log);
  if (config) {
    report.config = *config;
    report.warnings = config->warnings;
  } else {
    report.not_runnable = config.error().message();
  }
  const VisionConfig* vision =
      report.config && report.config->vision ? &*report.config->vision : nullptr;
  auto chat = open_chat(report.path, vision, log);
  if (chat) {
    report.chat_format = chat->service->format_name();
    if (report.config && chat->service->tokenizer().vocab_size() != report.config->vocab_size) {
      report.warnings.push_back(vocabulary_mismatch(*chat, *report.config).message());
    }
  } else {
    report.chat_problem = chat.error().message();
  }
  check_folder(checkpoint, report);
  return report;
}

Json groups_json(const Report& report) {
  Json groups = Json::array();
  for (const char* group : kGroupOrder) {
    auto found = report.groups.find(group);
    if (found == report.groups.end()) continue;
    for (const auto& [format, part] : found->second) {
      groups.push_back({{"group", group},
                        {"format", format},
                        {"tensors", part.tensors},
                        {"parameters", part.parameters},
                        {"bytes", part.bytes}});
    }
  }
  return groups;
}

Json config_json(const ModelConfig& c) {
  Json json = {{"hidden_size", c.hidden_size},
               {"num_layers", c.num_layers},
               {"num_heads", c.num_heads},
               {"num_kv_heads", c.num_kv_heads},
               {"head_dim", c.head_dim},
               {"intermediate_size", c.intermediate_size},
               {"vocab_size", c.vocab_size},
               {"tied", c.tied},
               {"sliding_window", c.sliding_window}};
  json["rope"] = {{"theta", c.rope.theta},
                  {"yarn", c.rope.yarn},
                  {"factor", c.rope.factor},
                  {"original_context", c.rope.original_context},
                  {"attention_factor", c.rope.attention_factor},
                  {"query_scaling_beta", c.rope.query_scaling_beta}};
  json["vision"] = Json();
  if (c.vision) {
    json["vision"] = {{"hidden_size", c.vision->hidden_size},
                      {"num_layers", c.vision->num_layers},
                      {"patch_size", c.vision->patch_size},
                      {"image_size", c.vision->image_size},
                      {"spatial_merge_size", c.vision->spatial_merge_size}};
  }
  return json;
}

Json report_json(const Report& report) {
  Json json = {{"model", report.path}, {"layout", report.layout}, {"files", report.files}};
  json["architecture"] = report.config ? Json(report.config->architecture) : Json();
  json["runnable"] = report.config.has_value();
  if (!report.config) json["problem"] = report.not_runnable;
  json["parameters"] = report.parameters;
  json["bytes"] = report.bytes;
  json["bits_per_weight"] = report.parameters == 0 ? 0.0
                                                   : 8.0 * static_cast<double>(report.bytes) /
                                                         static_cast<double>(report.parameters);
  json["context"] = report.config ? Json(report.config->context_length) : Json();
  json["config"] = report.config ? config_json(*report.config) : Json();
  json["groups"] = groups_json(report);
  json["chat_format"] = report.chat_format.empty() ? Json() : Json(report.chat_format);
  if (!report.chat_problem.empty()) json["chat_problem"] = report.chat_problem;
  json["warnings"] = report.warnings;
  return json;
}

std::string report_text(const Report& report) {
  auto line = [](const std::string& label, const std::string& value) {
    std::string text = label;
    if (text.size() < 16) text.resize(16, ' ');
    return text + " " + value + "\n";
  };
  std::string text = line("model", report.path);
  text += line("layout", report.layout + ", " + std::to_string(report.files.size()) +
                             (report.files.size() == 1 ? " file" : " files"));
  if (report.config) {
    const ModelConfig& c = *report.config;
    text += line("architecture", c.architecture + (c.name.empty() ? "" : " (" + c.name + ")"));
    text += line("shape", std::to_string(c.num_layers) + " layers, hidden " +
                              std::to_string(c.hidden_size) + ", heads " +
                              std::to_string(c.num_heads) + "/" + std::to_string(c.num_kv_heads) +
                              " of " + std::to_string(c.head_dim) + ", feed-forward " +
                              std::to_string(c.intermediate_size) + ", vocabulary " +
                              std::to_string(c.vocab_size) + (c.tied ? ", tied head" : ""));
    text += line("context",
                 format_count(static_cast<uint64_t>(std::max<int64_t>(c.context_length, 0))) +
                     " tokens" +
                     (c.rope.yarn ? ", YaRN factor " + format_fixed(c.rope.factor, 0) + " over " +
                                        format_count(static_cast<uint64_t>(c.rope.original_context))
                                  : ""));
    text +=
        line("vision", c.vision ? std::to_string(c.vision->num_layers) + " layers, patches of " +
                                      std::to_string(c.vision->patch_size) + ", pictures up to " +
                                      std::to_string(c.vision->image_size) + " pixels"
                                : "none");
  } else {
    text += line("not runnable", report.not_runnable);
  }
  text += line("parameters", format_count(report.parameters));
  text += line("size", format_bytes(report.bytes));
  for (const char* group : kGroupOrder) {
    auto found = report.groups.find(group);
    if (found == report.groups.end()) continue;
    std::string parts;
    for (const auto& [format, part] : found->second) {
      parts += (parts.empty() ? "" : "; ") + format + " " + format_bytes(part.bytes) + " in " +
               std::to_string(part.tensors);
    }
    text += line(std::string("  ") + group, parts);
  }
  text += line("chat format",
               report.chat_format.empty() ? "none: " + report.chat_problem : report.chat_format);
  for (const std::string& warning : report.warnings) text += line("warning", warning);
  return text;
}

Result<int> inspect(const InspectOptions& options) {
  // What the readers notice stands in the report; only errors are told beside it.
  bool chatty = options.common.log_level == "debug" || options.common.log_level == "info";
  Log log = chatty ? make_log(options.common.log_level) : Log();
  Report report = TRY(inspect_model(options, log));
  Json json = options.json ? report_json(report) : Json();
  std::string text = options.json ? "" : report_text(report);
  if (options.tensors) {
    Checkpoint checkpoint = TRY(open_checkpoint(report.path, options.common, Log()));
    Json rows = Json::array();
    for (const auto& [name, tensor] : checkpoint.tensors()) {
      if (options.json) {
        rows.push_back({{"name", name},
                        {"format", content_of(checkpoint, tensor).format},
                        {"shape", tensor.shape},
                        {"bytes", tensor.bytes.size()}});
      } else {
        text += name + "  " + content_of(checkpoint, tensor).format + "  " +
                shape_text(tensor.shape) + "  " + format_bytes(tensor.bytes.size()) + "\n";
      }
    }
    if (options.json) json["tensors"] = rows;
  }
  if (options.json) text = json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  TRY(write_output(options.json ? text : terminal_safe(text)));
  return kExitDone;
}

}  // namespace

void add_inspect_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* command = app.add_subcommand("inspect", "what a model is, without loading its weights");
  command->add_option("MODEL", options->model, "the model")->required();
  command->add_flag("--tensors", options->tensors, "list every tensor: name, format, shape, bytes");
  command->add_flag("--json", options->json, "print one JSON object");
  add_file_options(*command, options->common);
  command->callback([options, &action] { action = [options] { return inspect(*options); }; });
}

}  // namespace bise
