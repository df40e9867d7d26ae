// The descriptions of quantisation that the tools write into config.json and params.json.
#include <string_view>

#include "base/json.h"
#include "io/printable.h"
#include "io/quant_scheme.h"

namespace bise {
namespace {

constexpr JsonLimits kConfigLimits = {.max_bytes = 4 << 20};

Error unsupported(const std::string& found) {
  return Error(
      ErrorCode::unsupported,
      found +
          "; this version reads fp8, compressed-tensors (pack-quantized, int-quantized, "
          "float-quantized, nvfp4, mxfp4, mxfp8), modelopt, gptq, awq, auto-round, MLX and "
          "GGUF");
}
Error out_of_range(const std::string& place, int64_t found, const std::string& expected) {
  return Error(ErrorCode::corrupt,
               place + ": found " + std::to_string(found) + ", expected " + expected);
}

Result<void> read_block_size(const Json& blocks, const std::string& place, QuantParams& params) {
  if (!blocks.is_array() || blocks.size() != 2 || !blocks[0].is_number_unsigned() ||
      !blocks[1].is_number_unsigned()) {
    return Error(ErrorCode::corrupt, place + ": expected two numbers");
  }
  uint64_t rows = blocks[0].get<uint64_t>(), columns = blocks[1].get<uint64_t>();
  if (rows == 0 || columns == 0 || rows > 1 << 20 || columns > 1 << 20) {
    return Error(ErrorCode::corrupt, place + ": expected numbers from 1 to 1048576");
  }
  params.block_rows = static_cast<int64_t>(rows);
  params.block_columns = static_cast<int64_t>(columns);
  return {};
}

// Columns per scale: -1 and strategies without a group mean one scale per row.
Result<int64_t> read_group(const Json& object, int64_t fallback, const std::string& place) {
  int64_t group = TRY(json_int(object, "group_size", fallback, place));
  if (group == kWholeRow || group == 0 || (group > 0 && group <= 1 << 20)) return group;
  return out_of_range(place + ".group_size", group, "-1, or 1 to 1048576");
}
// 16 and 32 mean "not quantised".
Result<int32_t> read_bits(const Json& object, const char* key, int64_t fallback,
                          const std::string& place) {
  int64_t bits = TRY(json_int(object, key, fallback, place));
  if ((bits >= 0 && bits <= 8) || bits == 16 || bits == 32) return static_cast<int32_t>(bits);
  return out_of_range(place + "." + key, bits, "1 to 8");
}

// --- compressed-tensors
// ---------------------------------------------------------------------------

Result<void> check_format(const std::string& format, const std::string& place) {
  for (const char* known : {"", "pack-quantized", "int-quantized", "naive-quantized",
                            "float-quantized", "nvfp4-pack-quantized", "mxfp4-pack-quantized",
                            "mxfp8-quantized", "dense", "mixed-precision"}) {
    if (format == known) return {};
  }
  return unsupported(place + ".format: found " + in_quotes(format));
}

// A target is a pattern (re:…), the name of a class (Linear) or of a module.
bool is_module_name(const std::string& target) {
  return !target.starts_with("re:") && !target.empty() && !(target[0] >= 'A' && target[0] <= 'Z');
}

// Absent or false: a scale is stored; true or "local": the inputs' scales are made on the way.
Result<bool> has_stored_input_scale(const Json& group, const std::string& place) {
  const Json* inputs = TRY(json_object(group, "input_activations", place));
  if (inputs == nullptr || !json_has(*inputs, "dynamic")) return inputs != nullptr;
  const Json& dynamic = (*inputs)["dynamic"];
  if (dynamic.is_string()) return false;
  bool is_dynamic = TRY(json_bool(*inputs, "dynamic", false, place + ".input_activations"));
  return !is_dynamic;
}

Result<void> read_group_entry(const std::string& name, const Json& group, const std::string& where,
                              QuantScheme& scheme) {
  std::string format = TRY(json_string(group, "format", "", where));
  TRY(check_format(format, where));
  const Json* weights = TRY(json_object(group, "weights", where));
  if (weights == nullptr) return {};
  const std::string place = where + ".weights";
  QuantParams params;
  params.place = "config_groups." + in_quotes(name);
  std::string type = TRY(json_string(*weights, "type", "int", place));
  if (type != "int" && type != "float")
    return unsupported(place + ".type: found " + in_quotes(type));
  params.is_float = type == "float";
  params.bits = TRY(read_bits(*weights, "num_bits", 8, place));
  if (params.bits == 0 || params.bits > 8 ||
      (params.is_float && params.bits != 4 && params.bits != 8)) {
    return unsupported(place + ".num_bits: found " + std::to_string(params.bits) + " of type " +
                       type);
  }
  std::string strategy = TRY(json_string(*weights, "strategy", "", place));
  params.group = TRY(read_group(*weights, 0, place));
  if (strategy == "tensor" || strategy == "channel") params.group = kWholeRow;
  const bool fp8 = params.is_float && params.bits == 8;
  if (json_has(*weights, "block_structure")) {
    TRY(read_block_size((*weights)["block_structure"], place + ".block_structure", params));
    if (!fp8) return unsupported(place + ".block_structure: found one for other codes than FP8");
  } else if (fp8 && params.group > 0) {
    params.block_rows = 1;
    params.block_columns = params.group;
  }
  bool stored = TRY(has_stored_input_scale(group, where));
  params.static_activations = fp8 && stored;
  const bool has_targets = group.contains("targets") && group["targets"].is_array();
  bool any = !has_targets || group["targets"].empty();
  for (size_t i = 0; has_targets && i < group["targets"].size(); ++i) {
    const auto* target = group["targets"][i].get_ptr<const std::string*>();
    if (target == nullptr) return Error(ErrorCode::corrupt, where + ".targets: expected names");
    if (is_module_name(*target)) scheme.modules[module_key(*target)] = params;
    else any = true;
  }
  if (any) scheme.any.push_back(std::move(params));
  return {};
}

Result<void> read_compressed_tensors(const Json& config, const std::string& place,
                                     QuantScheme& scheme) {
  std::string format = TRY(json_string(config, "format", "", place));
  TRY(check_format(format, place));
  const Json* sparsity = TRY(json_object(config, "sparsity_config", place));
  if (sparsity != nullptr) {
    std::string sparse = TRY(json_string(*sparsity, "format", "dense", place + ".sparsity_config"));
    if (sparse != "dense")
      return unsupported(place + ".sparsity_config: found " + in_quotes(sparse));
  }
  const Json* transforms = TRY(json_object(config, "transform_config", place));
  if (transforms != nullptr && transforms->contains("config_groups") &&
      !(*transforms)["config_groups"].empty()) {
    return unsupported(place + ".transform_config: found transforms of activations");
  }
  const Json* groups = TRY(json_object(config, "config_groups", place));
  if (groups == nullptr) return {};
  for (const auto& [name, group] : groups->items()) {
    TRY(read_group_entry(name, group, place + ".config_groups." + in_quotes(name), scheme));
  }
  return {};
}

// --- the others
// -----------------------------------------------------------------------------------

Result<void> read_fp8(const Json& config, const std::string& place, QuantScheme& scheme) {
  QuantParams params;
  params.place = place;
  params.is_float = true;
  params.bits = 8;
  std::string activations = TRY(json_string(config, "activation_scheme", "dynamic", place));
  if (activations != "static" && activations != "dynamic") {
    return unsupported(place + ".activation_scheme: found " + in_quotes(activations));
  }
  params.static_activations = activations == "static";
  if (json_has(config, "weight_block_size")) {
    TRY(read_block_size(config["weight_block_size"], place + ".weight_block_size", params));
  }
  scheme.any.push_back(std::move(params));
  return {};
}

// ModelOpt: the layouts of FP8 and NVFP4 are told by the tensors; inputs of FP8 have stored scales.
Result<void> read_modelopt(const Json& config, const std::string& place, QuantScheme& scheme) {
  std::string algorithm = TRY(json_string(config, "quant_algo", "", place));
  if (algorithm != "FP8" && algorithm != "NVFP4" && algorithm != "MIXED_PRECISION") {
    return unsupported(place + ".quant_algo: found " + in_quotes(algorithm));
  }
  QuantParams params;
  params.place = place;
  params.is_float = true;
  params.bits = 8;
  params.static_activations = true;
  scheme.any.push_back(std::move(params));
  return {};
}

// bits and group_size of an entry that stands for some modules; what it leaves out is `top`'s.
Result<QuantParams> read_integer_entry(const Json& entry, const QuantParams& top,
                                       const std::string& place) {
  QuantParams params = top;
  params.place = place;
  params.bits = TRY(read_bits(entry, "bits", top.bits, place));
  params.group = TRY(read_group(entry, top.group, place));
  return params;
}

// gptq, awq and AutoRound's own: the tensors tell their layouts apart.
Result<void> read_integer(const Json& config, const std::string& place, QuantScheme& scheme) {
  QuantParams top;
  top.place = place;
  top.bits = TRY(read_bits(config, "bits", 0, place));
  top.group = TRY(read_group(config, 0, place));
  scheme.any.push_back(top);
  // AutoRound: what the tools call the layout; older files say it under "backend".
  std::string packing = TRY(json_string(config, "backend", "", place));
  packing = TRY(json_string(config, "packing_format", packing, place));
  std::string checkpoint = TRY(json_string(config, "checkpoint_format", "gptq", place));
  if (scheme.method == "auto-round") {
    const bool first = packing.empty() || (packing.find("gptq") != std::string::npos &&
                                           packing.find("gptqmodel") == std::string::npos);
    scheme.gptq_zero_offset = first ? 1 : 0;
  } else if (checkpoint == "gptq_v2") {
    scheme.gptq_zero_offset = 0;
  } else if (checkpoint != "gptq") {
    return unsupported(place + ".checkpoint_format: found " + in_quotes(checkpoint));
  }
  std::string version = TRY(json_string(config, "version", "gemm", place));
  if (scheme.method == "awq" && version != "gemm" && version != "GEMM") {
    return unsupported(place + ".version: found " + in_quotes(version));
  }
  const Json* extra = TRY(json_object(config, "extra_config", place));
  const Json none = Json::object();
  for (const auto& [name, entry] : (extra != nullptr ? *extra : none).items()) {
    if (!entry.is_object()) continue;
    std::string where = place + ".extra_config." + in_quotes(name);
    QuantParams params = TRY(read_integer_entry(entry, top, where));
    const bool pattern = name.find_first_of("*+?[](){}|\\^$") != std::string::npos;
    if (params.bits > 8) continue;  // left as it was
    if (pattern) scheme.any.push_back(std::move(params));
    else scheme.modules[module_key(name)] = std::move(params);
  }
  // GPTQ: patterns of names, "-:" for modules that are left as they were.
  const Json* dynamic = TRY(json_object(config, "dynamic", place));
  for (const auto& [pattern, entry] : (dynamic != nullptr ? *dynamic : none).items()) {
    if (pattern.starts_with("-:") || !entry.is_object()) continue;
    std::string where = place + ".dynamic." + in_quotes(pattern);
    QuantParams params = TRY(read_integer_entry(entry, top, where));
    if (params.bits <= 8) scheme.any.push_back(std::move(params));
  }
  return {};
}

// --- MLX
// ------------------------------------------------------------------------------------------

Result<QuantParams> read_mlx_entry(const Json& entry, const QuantParams* top,
                                   const std::string& place) {
  QuantParams params;
  params.place = place;
  params.mode = TRY(json_string(entry, "mode", "affine", place));
  const bool affine = params.mode == "affine";
  if (!affine && params.mode != "mxfp4" && params.mode != "mxfp8" && params.mode != "nvfp4") {
    return unsupported(place + ".mode: found " + in_quotes(params.mode));
  }
  params.is_float = !affine;
  int32_t bits = top != nullptr ? top->bits : params.mode == "mxfp8" ? 8 : 4;
  params.bits = TRY(read_bits(entry, "bits", bits, place));
  if (params.bits < 1 || params.bits > 8) {
    return out_of_range(place + ".bits", params.bits, "1 to 8");
  }
  // An explicit null is some writers' "as the others": the shapes say it.
  params.group = TRY(read_group(entry, 0, place));
  return params;
}

Result<void> read_mlx(const Json& config, const std::string& place, QuantScheme& scheme) {
  QuantParams top = TRY(read_mlx_entry(config, nullptr, place));
  scheme.method = "mlx";
  for (const auto& [name, entry] : config.items()) {
    if (!entry.is_object()) continue;  // numbers of the top, and `false` for a module left dense
    QuantParams params = TRY(read_mlx_entry(entry, &top, place + "." + in_quotes(name)));
    scheme.modules[module_key(name)] = std::move(params);
  }
  scheme.any.push_back(std::move(top));
  return {};
}

// quantization_config, as config.json and newer params.json files hold it.
Result<QuantScheme> read_config(const Json& config, const std::string& place) {
  QuantScheme scheme;
  scheme.method = TRY(json_string(config, "quant_method", "", place));
  if (scheme.method == "intel/auto-round") scheme.method = "auto-round";
  if (scheme.method == "fp8") {
    TRY(read_fp8(config, place, scheme));
  } else if (scheme.method == "compressed-tensors") {
    TRY(read_compressed_tensors(config, place, scheme));
  } else if (scheme.method == "modelopt") {
    TRY(read_modelopt(config, place, scheme));
  } else if (scheme.method == "gptq" || scheme.method == "awq" || scheme.method == "auto-round") {
    TRY(read_integer(config, place, scheme));
  } else if (scheme.method.empty() && json_has(config, "bits")) {
    TRY(read_mlx(config, place, scheme));
  } else {
    return unsupported(place + ".quant_method: found " + in_quotes(scheme.method));
  }
  return scheme;
}

}  // namespace

std::string module_key(const std::string& name) {
  std::string_view rest = name;
  for (bool more = true; more;) {
    more = false;
    for (std::string_view prefix : {"model.", "language_model."}) {
      if (!rest.starts_with(prefix)) continue;
      rest.remove_prefix(prefix.size());
      more = true;
    }
  }
  return std::string(rest);
}

Result<QuantScheme> read_hf_quantization(const std::string& config_json) {
  Json top = TRY(parse_json(config_json, kConfigLimits).with_context("config.json"));
  // MLX writes both keys; "quantization" is then the one to go by.
  for (const char* key : {"quantization", "quantization_config"}) {
    const Json* config = TRY(json_object(top, key, "config.json"));
    if (config != nullptr) return read_config(*config, std::string("config.json: ") + key);
  }
  // Some writers of models with vision describe only the language model.
  const Json* text = TRY(json_object(top, "text_config", "config.json"));
  const Json* config = nullptr;
  if (text != nullptr) {
    config = TRY(json_object(*text, "quantization_config", "config.json: text_config"));
  }
  if (config != nullptr)
    return read_config(*config, "config.json: text_config.quantization_config");
  return QuantScheme();
}

Result<QuantScheme> read_mistral_quantization(const std::string& params_json) {
  QuantScheme scheme;
  Json top = TRY(parse_json(params_json, kConfigLimits).with_context("params.json"));
  for (const char* key : {"quantization", "quantization_config"}) {
    const Json* config = TRY(json_object(top, key, "params.json"));
    if (config == nullptr) continue;
    const std::string place = std::string("params.json: ") + key;
    if (json_has(*config, "quant_method")) return read_config(*config, place);
    scheme.method = TRY(json_string(*config, "qformat_weight", "", place));
    if (scheme.method != "fp8_e4m3") {
      return unsupported(place + ".qformat_weight: found " + in_quotes(scheme.method));
    }
    // null means the same as TENSOR.
    std::string activations = TRY(json_string(*config, "qscheme_act", "TENSOR", place));
    if (activations != "TENSOR" && activations != "NO_SCALES") {
      return unsupported(place + ".qscheme_act: found " + in_quotes(activations));
    }
    QuantParams params;
    params.place = place;
    params.is_float = true;
    params.bits = 8;
    params.static_activations = activations == "TENSOR";
    scheme.any.push_back(std::move(params));
    return scheme;
  }
  return scheme;
}

}  // namespace bise
