#include "server/chat_grammar.h"

#include <algorithm>
#include <optional>

#include "server/lark_text.h"
#include "server/structural_tag.h"

namespace bise {
namespace {

struct GrammarTool {
  std::string name;
  std::string json;  // of its arguments, as the right side of a rule
  bool strict = false;
};

std::string id_token(int32_t id) { return "<[" + std::to_string(id) + "]>"; }

// The right side of a rule that writes this structure.
ApiResult<std::string> structure_rule(const Structure& structure) {
  switch (structure.kind) {
    case Structure::Kind::json_object: return lark_json(R"({"type":"object"})", structure.blanks, structure.param);
    case Structure::Kind::json_schema: return lark_json(structure.text, structure.blanks, structure.param);
    case Structure::Kind::regex: return lark_regex(structure.text);
    case Structure::Kind::structural_tag: {
      std::string grammar = TRY(structural_tag_grammar(structure.text, structure.param));
      return "%lark {\n" + grammar + "}";
    }
    case Structure::Kind::choice: {
      std::string out;
      for (const std::string& choice : structure.choices) out += (out.empty() ? "" : " | ") + lark_string(choice);
      return out;
    }
    case Structure::Kind::lark: return "%lark {\n" + structure.text + "\n}";
    case Structure::Kind::none: break;
  }
  return std::string();
}

ApiResult<std::vector<GrammarTool>> read_tools(const PyJson& body) {
  std::vector<GrammarTool> tools;
  const PyJson* list = body.get("tools");
  if (list == nullptr || list->array() == nullptr) return tools;
  for (const PyJson& item : *list->array()) {
    const PyJson* function = item.get("function");
    const PyJson* name = function == nullptr ? nullptr : function->get("name");
    if (name == nullptr || name->string() == nullptr) continue;  // refused by the encoder
    GrammarTool tool;
    tool.name = join_surrogates(*name->string());
    const PyJson* strict = function->get("strict");
    tool.strict = strict != nullptr && strict->truthy();
    const PyJson* parameters = function->get("parameters");
    const bool has_schema = parameters != nullptr && parameters->object() != nullptr && !parameters->object()->empty();
    std::string schema = R"({"type":"object"})";
    if (tool.strict && has_schema) schema = dump_python_json(*parameters);
    else if (tool.strict) schema = R"({"type":"object","properties":{},"additionalProperties":false})";
    tool.json = TRY(lark_json(schema, {}, "tools"));
    tools.push_back(std::move(tool));
  }
  return tools;
}

struct Markers {
  std::optional<int32_t> calls, args, call_id, think, think_end;
};

std::string call_rules(const std::vector<GrammarTool>& tools, const Markers& markers) {
  std::string names, rules;
  for (size_t i = 0; i < tools.size(); ++i) {
    const std::string rule = "call_" + std::to_string(i);
    names += (names.empty() ? "" : " | ") + rule;
    rules += rule + ": " + id_token(*markers.calls) + " " + lark_string(tools[i].name) + " " + id_token(*markers.args) + " json_" + std::to_string(i) + "\n";
    rules += "json_" + std::to_string(i) + ": " + tools[i].json + "\n";
  }
  return "call: " + names + "\n" + rules;
}

}  // namespace

ApiResult<std::string> structure_grammar(const Structure& structure) {
  return "start: " + TRY(structure_rule(structure)) + "\n";
}

ApiResult<ChatConstraint> chat_constraint(const PyJson& body, const GenerationParameters& parameters,
                                          const ChatService& chat) {
  ChatConstraint out;
  const Tokenizer& tokenizer = chat.tokenizer();
  Markers markers;
  // Only the Mistral formats give these ids a meaning.
  if (chat.format_name().starts_with("mistral")) {
    markers = {tokenizer.special("[TOOL_CALLS]"), tokenizer.special("[ARGS]"), tokenizer.special("[CALL_ID]"),
               tokenizer.special("[THINK]"), tokenizer.special("[/THINK]")};
  }
  std::vector<GrammarTool> tools = TRY(read_tools(body));
  const PyJson* choice = body.get("tool_choice");
  const bool named = choice != nullptr && choice->object() != nullptr;
  const std::string word = choice != nullptr && choice->string() != nullptr ? *choice->string() : "auto";
  const bool none = tools.empty() || word == "none";
  const bool required = !none && (named || word == "required" || word == "any");
  if (named) {
    const PyJson* function = choice->get("function");
    const PyJson* name = function == nullptr ? nullptr : function->get("name");
    const std::string wanted = name != nullptr && name->string() != nullptr ? join_surrogates(*name->string()) : "";
    std::erase_if(tools, [&](const GrammarTool& tool) { return tool.name != wanted; });
    if (tools.empty()) return ApiError::invalid("tool_choice", "tool_choice names " + wanted.substr(0, 100) + ", which is not in tools");
  }
  if (none && markers.calls) {
    // With tools in sight the model might begin a call; without, it cannot mean one.
    if (body.get("tools") != nullptr) out.banned_tokens.push_back(*markers.calls);
    else out.stop_tokens.push_back(*markers.calls);
  }
  const bool strict = !none && std::any_of(tools.begin(), tools.end(), [](const GrammarTool& tool) { return tool.strict; });
  const bool structured = parameters.structure.kind != Structure::Kind::none;
  if (!required && !strict && !structured) return out;
  if ((required || strict) && (!markers.calls || !markers.args)) {
    return ApiError::unsupported(required ? "tool_choice" : "tools", "this model's chat format (" + chat.format_name() + ") cannot be held to a call");
  }
  out.param = structured ? parameters.structure.param : required ? "tool_choice" : "tools";
  // A structure named by tool_choice required is refused with the request; with auto either may come.
  const std::string repeat = parameters.parallel_tool_calls ? "call+" : "call";
  const std::string think = markers.think && markers.think_end ? "think? " : "";
  std::string answer;
  if (structured && (none || tools.empty())) answer = "structure";
  else if (structured) answer = "(structure | calls)";
  else if (required) answer = "calls";  // a model that may talk first need never call
  else answer = "(TEXT | TEXT? calls)";
  out.lark = "start: " + think + answer + "\n";
  if (!think.empty()) out.lark += "think: " + id_token(*markers.think) + " TEXT? " + id_token(*markers.think_end) + "\n";
  if (structured) out.lark += "structure: " + TRY(structure_rule(parameters.structure)) + "\n";
  if (!none) out.lark += "calls: " + repeat + "\n" + call_rules(tools, markers);
  if (out.lark.find("TEXT") != std::string::npos) out.lark += "TEXT: /(.|\\n)+/\n";
  return out;
}

}  // namespace bise
