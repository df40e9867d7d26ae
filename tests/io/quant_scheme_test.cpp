#include "io/quant_scheme.h"

#include <gtest/gtest.h>

#include <map>

#include "base/json.h"
#include "io/file_builders.h"

namespace bise {
namespace {

using test::expect_error;

Result<QuantScheme> hf(const std::string& quantization) {
  return read_hf_quantization("{\"quantization_config\":" + quantization + "}");
}

TEST(quant_scheme, a_config_without_quantisation_has_none) {
  for (const char* config : {"{}", R"({"quantization_config":null})"}) {
    auto scheme = read_hf_quantization(config);
    ASSERT_TRUE(scheme.has_value());
    EXPECT_EQ(scheme->method, "");
    EXPECT_TRUE(scheme->any.empty() && scheme->modules.empty());
  }
  EXPECT_EQ(read_mistral_quantization(R"({"dim":1})")->method, "");
}

TEST(quant_scheme, published_fp8_configs_are_understood) {
  auto shipped = hf(R"({"quant_method":"fp8","activation_scheme":"static","weight_block_size":null,
                        "modules_to_not_convert":["model.vision_tower","lm_head"]})");
  ASSERT_TRUE(shipped.has_value());
  ASSERT_EQ(shipped->any.size(), 1u);
  EXPECT_TRUE(shipped->any[0].static_activations);
  EXPECT_EQ(shipped->any[0].block_rows, 0);
  auto blocks =
      hf(R"({"quant_method":"fp8","activation_scheme":"dynamic","weight_block_size":[128,64]})");
  ASSERT_TRUE(blocks.has_value());
  EXPECT_FALSE(blocks->any[0].static_activations);
  EXPECT_EQ(blocks->any[0].block_rows, 128);
  EXPECT_EQ(blocks->any[0].block_columns, 64);
}

TEST(quant_scheme, a_description_inside_the_text_configuration_counts_when_it_is_the_only_one) {
  const std::string inner =
      R"("text_config":{"quantization_config":{"quant_method":"awq","bits":4}})";
  EXPECT_EQ(read_hf_quantization("{" + inner + "}")->method, "awq");
  EXPECT_EQ(read_hf_quantization("{" + inner + R"(,"quantization_config":{"quant_method":"fp8"}})")
                ->method,
            "fp8");
}

TEST(quant_scheme, params_json_says_whether_inputs_have_scales) {
  auto read = [](const char* scheme) {
    return read_mistral_quantization(
        std::string(R"({"quantization":{"qformat_weight":"fp8_e4m3","qscheme_act":)") + scheme +
        "}}");
  };
  EXPECT_TRUE(read("\"TENSOR\"")->any[0].static_activations);
  EXPECT_TRUE(read("null")->any[0].static_activations);
  EXPECT_FALSE(read("\"NO_SCALES\"")->any[0].static_activations);
  expect_error(read("\"TOKEN\""), "qscheme_act: found \"TOKEN\"");
  expect_error(read_mistral_quantization(R"({"quantization":{"qformat_weight":"int4"}})"),
               "params.json: quantization.qformat_weight: found \"int4\"");
}

TEST(quant_scheme, what_is_not_read_is_refused_by_name) {
  auto refused = [](const std::string& config, const std::string& name) {
    auto scheme = hf(config);
    expect_error(scheme, name);
    EXPECT_EQ(scheme.error().code(), ErrorCode::unsupported);
  };
  refused(R"({"quant_method":"bitsandbytes","load_in_4bit":true})",
          "quant_method: found \"bitsandbytes\"");
  refused(R"({"quant_method":"awq","bits":4,"version":"marlin"})", "version: found \"marlin\"");
  refused(R"({"quant_method":"gptq","bits":4,"checkpoint_format":"marlin"})",
          "checkpoint_format: found \"marlin\"");
  refused(R"({"quant_method":"modelopt","quant_algo":"W4A8_AWQ"})",
          "quant_algo: found \"W4A8_AWQ\"");
  const std::string ct = R"({"quant_method":"compressed-tensors",)";
  refused(ct + R"("format":"nvfp4-e5m3-pack-quantized"})", "found \"nvfp4-e5m3-pack-quantized\"");
  refused(ct + R"("format":"marlin-24"})", "found \"marlin-24\"");
  refused(ct + R"("sparsity_config":{"format":"sparse-24-bitmask"}})", "sparse-24-bitmask");
  refused(ct + R"("transform_config":{"config_groups":{"R3":{}}}})", "transforms of activations");
  refused(ct + R"("config_groups":{"g":{"weights":{"num_bits":6,"type":"float"}}}})",
          "num_bits: found 6 of type float");
  refused(ct + R"("config_groups":{"g":{"weights":{"num_bits":4,"type":"complex"}}}})",
          "type: found \"complex\"");
  expect_error(read_hf_quantization(R"({"quantization":{"bits":4,"mode":"mxfp6"}})"),
               "mode: found \"mxfp6\"");
}

TEST(quant_scheme, broken_configs_are_refused) {
  expect_error(read_hf_quantization("{"), "config.json: not valid JSON");
  expect_error(hf("3"), "config.json.quantization_config: expected an object");
  expect_error(hf("{}"), "quant_method: found \"\"");
  expect_error(hf(R"({"quant_method":"a\nb"})"), "found \"a b\"");
  expect_error(hf(R"({"quant_method":"fp8","activation_scheme":"odd"})"), "found \"odd\"");
  for (const char* size : {"[128]", "[0,1]", "[1,-1]", "[1,1.5]", "[1,4294967296]", "{}"}) {
    expect_error(hf(std::string(R"({"quant_method":"fp8","weight_block_size":)") + size + "}"),
                 "weight_block_size: expected");
  }
  const std::string ct = R"({"quant_method":"compressed-tensors","config_groups":{"g":{"weights":)";
  expect_error(hf(ct + R"({"num_bits":9}}}})"), "num_bits: found 9, expected 1 to 8");
  expect_error(hf(ct + R"({"num_bits":4,"group_size":-2}}}})"),
               "group_size: found -2, expected -1");
  expect_error(hf(ct + R"({"num_bits":4,"group_size":1048577}}}})"), "group_size: found 1048577");
  expect_error(hf(ct + R"({"num_bits":4},"targets":[4]}}})"), "targets: expected names");
  expect_error(hf(R"({"quant_method":"gptq","bits":"4"})"), "bits: expected");
  expect_error(hf(R"({"quant_method":"auto-round","bits":4,"extra_config":{"a":{"bits":77}}})"),
               "extra_config.\"a\".bits: found 77");
  expect_error(hf(R"({"quant_method":"compressed-tensors","format":"float-quantized",
                      "config_groups":{"g":3}})"),
               "config_groups.\"g\"");
}

// Tensors for assemble_weight, by name.
class Tensors {
 public:
  void add(const std::string& name, DType type, std::vector<int64_t> shape, std::string data) {
    Held& held = held_[name];
    held.data = std::move(data);
    held.view = {name, type, std::move(shape), as_bytes(held.data), -1};
  }
  TensorView& view(const std::string& name) { return held_[name].view; }
  Result<WeightView> assemble(const std::string& name, const QuantScheme& scheme) const {
    return assemble_weight(name, scheme, [this](const std::string& part) -> const TensorView* {
      auto it = held_.find(part);
      return it == held_.end() ? nullptr : &it->second.view;
    });
  }

 private:
  struct Held {
    std::string data;
    TensorView view;
  };
  std::map<std::string, Held> held_;
};

constexpr const char* kWeight = "q_proj.weight";

Tensors fp8_tensors() {
  Tensors tensors;
  tensors.add(kWeight, DType::f8_e4m3, {4, 6}, std::string(24, 0x38));
  return tensors;
}

QuantScheme fp8_scheme(bool static_activations, int64_t block_rows = 0, int64_t block_columns = 0) {
  QuantParams params{"test", true, 8, 0, "", static_activations, block_rows, block_columns};
  QuantScheme scheme;
  scheme.method = "fp8";
  scheme.any.push_back(params);
  return scheme;
}

TEST(quant_scheme, parts_are_found_by_every_published_name) {
  const QuantScheme scheme = fp8_scheme(true);
  const std::pair<const char*, const char*> names[] = {{"weight_scale_inv", "activation_scale"},
                                                       {"weight_scale", "input_scale"},
                                                       {"qscale_weight", "qscale_act"}};
  for (auto [weight_scale, input_scale] : names) {
    for (const std::vector<int64_t>& shape : {std::vector<int64_t>{}, {1}, {1, 1}}) {
      Tensors tensors = fp8_tensors();
      tensors.add(std::string("q_proj.") + weight_scale, DType::f32, shape, test::floats({0.5f}));
      tensors.add(std::string("q_proj.") + input_scale, DType::bf16, shape,
                  std::string("\x00\x3E", 2));
      auto weight = tensors.assemble(kWeight, scheme);
      ASSERT_TRUE(weight.has_value()) << weight.error().message();
      EXPECT_EQ(weight->activation_scale, 0.125f);
      EXPECT_EQ(weight->scale.num_elements(), 1);
    }
  }
}

TEST(quant_scheme, stored_input_scales_are_left_out_when_inputs_are_dynamic) {
  Tensors tensors = fp8_tensors();
  tensors.add("q_proj.weight_scale", DType::f32, {}, test::floats({0.5f}));
  tensors.add("q_proj.input_scale", DType::f32, {}, test::floats({0.5f}));
  EXPECT_EQ(tensors.assemble(kWeight, QuantScheme())->activation_scale, 0.0f);
}

TEST(quant_scheme, scales_of_the_wrong_shape_are_refused) {
  auto with_shape = [](std::vector<int64_t> shape, QuantScheme scheme = {}) {
    Tensors tensors = fp8_tensors();
    tensors.add("q_proj.weight_scale", DType::f32, shape, std::string(400, '\0'));
    return tensors.assemble(kWeight, scheme);
  };
  EXPECT_TRUE(with_shape({4}).has_value());
  EXPECT_TRUE(with_shape({4, 1}).has_value());
  expect_error(with_shape({1, 4}), "q_proj.weight_scale: found shape [1, 4]");
  expect_error(with_shape({6}), "one for each of 4 rows");
  expect_error(with_shape({2, 2}), "found shape [2, 2]");
  expect_error(with_shape({0}), "found shape [0]");
  const QuantScheme blocks = fp8_scheme(false, 3, 4);
  EXPECT_TRUE(with_shape({2, 2}, blocks).has_value());
  expect_error(with_shape({1, 2}, blocks), "expected [2, 2] (one scale per block)");
}

TEST(quant_scheme, scales_that_are_no_numbers_are_refused) {
  auto with_scale = [](float value, DType type = DType::f32) {
    Tensors tensors = fp8_tensors();
    tensors.add("q_proj.weight_scale", type, {}, test::floats({value}));
    return tensors.assemble(kWeight, QuantScheme());
  };
  expect_error(with_scale(std::numeric_limits<float>::quiet_NaN()), "expected a finite number");
  expect_error(with_scale(std::numeric_limits<float>::infinity()), "expected a finite number");
  expect_error(with_scale(-1.0f), "expected a finite number");
  expect_error(with_scale(1.0f, DType::i32), "found dtype I32");
  EXPECT_TRUE(with_scale(0.0f).has_value());
}

TEST(quant_scheme, missing_parts_are_named) {
  Tensors tensors = fp8_tensors();
  expect_error(tensors.assemble(kWeight, QuantScheme()), "FP8 codes without a scale");
  tensors.add("q_proj.weight_scale", DType::f32, {}, test::floats({0.5f}));
  const QuantScheme scheme = fp8_scheme(true);
  expect_error(tensors.assemble(kWeight, scheme), "there is no q_proj.activation_scale");
  tensors.add("q_proj.input_scale", DType::f32, {}, test::floats({0.0f}));
  expect_error(tensors.assemble(kWeight, scheme), "inputs are divided by it");
  expect_error(tensors.assemble("k_proj.weight", scheme), "tensor k_proj.weight is missing");
}

TEST(quant_scheme, tensors_that_are_no_weights_are_refused) {
  Tensors tensors;
  tensors.add("a.weight", DType::i64, {2, 2}, std::string(32, '\0'));
  expect_error(tensors.assemble("a.weight", QuantScheme()), "found dtype I64");
  tensors.add("b.weight", DType::f32, {4}, std::string(16, '\0'));
  expect_error(tensors.assemble("b.weight", QuantScheme()), "found shape [4], expected a matrix");
  tensors.add("c.weight", DType::block, {2, 256}, std::string(132, '\0'));
  tensors.view("c.weight").ggml_type = 19;
  expect_error(tensors.assemble("c.weight", QuantScheme()), "the GGUF type IQ1_S is not read");
}

}  // namespace
}  // namespace bise
