// The three dialects of a model's shape, each read by its own file; model_config joins and validates
// them. Internal to model_config.
#pragma once

#include "model/model_config.h"

namespace bise {

// g(s, m) of YaRN's magnitude: 1 for s <= 1, else 0.1 m ln(s) + 1.
double yarn_magnitude(double factor, double mscale);

// The magnitude A from the two mscale fields by the rule of transformers (also llama.cpp's, whose
// yarn_log_multiplier stands for mscale_all_dim and whose mscale is 1). The first release of Medium
// 3.5 carried mscale_all_dim 1, which switches the magnitude off; it is recognised by factor 64
// without query scaling, corrected, and said once, unless the configuration is to be trusted.
double yarn_attention_factor(const RopeConfig& rope, double mscale, double mscale_all_dim,
                             const char* field, bool trust_config,
                             std::vector<std::string>& warnings);

Result<Activation> activation_of(const std::string& name, const std::string& place);

Result<ModelConfig> read_hf_config(const std::string& text, const ConfigOptions& options);
Result<ModelConfig> read_mistral_config(const std::string& text, const ConfigOptions& options);
Result<ModelConfig> read_gguf_config(const GgufFile& file, const GgufFile* projector,
                                     const ConfigOptions& options);

}  // namespace bise
