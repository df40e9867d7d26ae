// Which tensors make a quantised matrix, by every tool's names; what does not fit is one clear
// error.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "io/file_builders.h"
#include "io/quant_scheme.h"
#include "tensor/group_codes.h"

namespace bise {
namespace {

using test::expect_error;

using Shape = std::vector<int64_t>;

// A module "m" with tensors full of one byte.
class Module {
 public:
  explicit Module(const std::string& quantization, const char* key = "quantization_config") {
    auto read = read_hf_quantization(std::string("{\"") + key + "\":" + quantization + "}");
    EXPECT_TRUE(read.has_value()) << read.error().message();
    if (read) scheme_ = *read;
  }
  Module& add(const std::string& part, DType type, const Shape& shape, char fill = 0) {
    int64_t count = dtype_bytes(type);
    for (int64_t size : shape) count *= size;
    Held& held = held_["m." + part];
    held.data.assign(static_cast<size_t>(count), fill);
    held.view = {"m." + part, type, shape, as_bytes(held.data), -1};
    return *this;
  }
  Module& value(const std::string& part, const std::string& data) {
    held_["m." + part].data = data;
    held_["m." + part].view.bytes = as_bytes(held_["m." + part].data);
    return *this;
  }
  Module& drop(const std::string& part) {
    held_.erase("m." + part);
    return *this;
  }
  Result<WeightView> get(const std::string& name = "m.weight") const {
    auto weight =
        assemble_weight(name, scheme_, [this](const std::string& part) -> const TensorView* {
          auto it = held_.find(part);
          return it == held_.end() ? nullptr : &it->second.view;
        });
    if (!weight) return weight;
    auto checked = check_weight(*weight);
    if (!checked) return checked.error();
    return weight;
  }
  QuantScheme& scheme() { return scheme_; }

 private:
  struct Held {
    std::string data;
    TensorView view;
  };
  std::map<std::string, Held> held_;
  QuantScheme scheme_;
};

std::string ct(const std::string& weights, const std::string& more = "") {
  return R"({"quant_method":"compressed-tensors","config_groups":{"g":{"targets":["Linear"],"weights":)" +
         weights + "}" + more + "}}";
}
const std::string kInt4 = R"({"num_bits":4,"type":"int","strategy":"group","group_size":32})";

Module packed() {
  Module m(ct(kInt4));
  m.add("weight_packed", DType::i32, {64, 8}).add("weight_scale", DType::bf16, {64, 2}, 0x3F);
  m.add("weight_shape", DType::i64, {2});
  std::string shape;
  test::append<int64_t>(shape, 64);
  test::append<int64_t>(shape, 64);
  m.value("weight_shape", shape);
  return m;
}
std::string two(int64_t rows, int64_t columns) {
  std::string shape;
  test::append(shape, rows);
  test::append(shape, columns);
  return shape;
}

TEST(group_weights, pack_quantized_is_assembled_by_group_channel_and_tensor) {
  auto w = packed().get();
  ASSERT_TRUE(w.has_value()) << w.error().message();
  EXPECT_EQ(w->columns, 64);
  EXPECT_EQ(describe_format(*w), "INT4 g32");
  EXPECT_EQ(zero_kind(*w), ZeroKind::none);
  EXPECT_TRUE(packed().drop("weight_shape").get().has_value());
  Module channel(ct(R"({"num_bits":8,"strategy":"channel"})"));
  channel.add("weight_packed", DType::i32, {4, 16}).add("weight_scale", DType::f16, {4, 1});
  EXPECT_EQ(describe_format(*channel.get()), "INT8 per row");
  channel.add("weight_scale", DType::f16, {4});
  EXPECT_EQ(channel.get()->group, 64);
  channel.add("weight_scale", DType::f16, {1});  // strategy tensor
  EXPECT_EQ(channel.get()->group, 64);
}

TEST(group_weights, words_of_odd_widths_are_told_apart_by_their_number) {
  const std::string config =
      ct(R"({"num_bits":3,"strategy":"group","group_size":32,"symmetric":false})");
  Module m(config);
  m.add("weight_scale", DType::bf16, {32, 2})
      .add("weight_shape", DType::i64, {2})
      .value("weight_shape", two(32, 64));
  m.add("weight_packed", DType::i32, {32, 6}).add("weight_zero_point", DType::i32, {3, 2});
  EXPECT_EQ(m.get()->codes_per_word, 0);
  m.add("weight_packed", DType::i32, {32, 7}).add("weight_zero_point", DType::i32, {4, 2});
  EXPECT_EQ(m.get()->codes_per_word, 10);
  m.add("weight_zero_point", DType::i32, {3, 2});
  expect_error(m.get(), "m.weight_zero_point: found shape [3, 2], expected [4, 2]");
  m.add("weight_packed", DType::i32, {32, 5});
  expect_error(
      m.get(),
      "found 5 words and 2 scales per row of 64 columns, but config_groups.\"g\" says 3 bits");
}

TEST(group_weights, shapes_of_pack_quantized_that_lie_are_refused) {
  expect_error(packed().drop("weight_scale").get(), "its codes are there, but not m.weight_scale");
  expect_error(packed().add("weight_scale", DType::bf16, {64, 3}).get(), "3 scales per row");
  expect_error(packed().add("weight_scale", DType::bf16, {63, 2}).get(),
               "m.weight_scale: found shape [63, 2]");
  expect_error(packed().add("weight_scale", DType::i32, {64, 2}).get(),
               "found dtype I32, expected BF16 or F16 or F32");
  expect_error(packed().add("weight_packed", DType::i32, {64}).get(),
               "found shape [64], expected a matrix");
  expect_error(packed().add("weight_packed", DType::i32, {64, 0}).get(),
               "expected a matrix with elements");
  expect_error(packed().add("weight_packed", DType::i64, {64, 8}).get(),
               "found dtype I64, expected I32");
  expect_error(packed().value("weight_shape", two(63, 64)).get(),
               "says [63, 64], but m.weight_packed has 64 rows");
  expect_error(packed().value("weight_shape", two(64, 65)).get(), "of 65 columns, but");
  expect_error(packed().value("weight_shape", two(64, -1)).get(), "says [64, -1]");
  expect_error(packed().value("weight_shape", two(64, INT64_MAX)).get(),
               "says [64, 9223372036854775807]");
  expect_error(packed().add("weight_zero_point", DType::i32, {64, 2}).get(),
               "expected [8, 2] (zero points packed");
  expect_error(packed().add("weight_zero_point", DType::f32, {8, 2}).get(), "found dtype F32");
  expect_error(packed().add("weight_g_idx", DType::i32, {63}).get(),
               "m.weight_g_idx: found shape [63], expected [64]");
  expect_error(packed().add("weight_g_idx", DType::i32, {64}, 0x11).get(),
               "found group 286331153 for column 0");
}

TEST(group_weights, the_group_index_is_kept_only_where_it_says_something) {
  std::string trivial, unused, order;
  for (int32_t k = 0; k < 64; ++k) {
    test::append<int32_t>(trivial, k / 32);
    test::append<int32_t>(unused, -1);
    test::append<int32_t>(order, k % 2);
  }
  Module m = packed();
  m.add("weight_g_idx", DType::i32, {64});
  EXPECT_TRUE(m.value("weight_g_idx", trivial).get()->group_index.shape.empty());
  EXPECT_TRUE(m.value("weight_g_idx", unused).get()->group_index.shape.empty());
  EXPECT_EQ(m.value("weight_g_idx", order).get()->group_index.shape, Shape{64});
}

TEST(group_weights, config_groups_are_told_apart_by_names_and_by_shapes) {
  const std::string two_groups =
      R"({"quant_method":"compressed-tensors","config_groups":{
        "a":{"targets":["re:.*down.*"],"weights":{"num_bits":4,"group_size":32}},
        "b":{"targets":["re:.*up.*"],"weights":{"num_bits":8,"group_size":32}},
        "c":{"targets":["model.language_model.m"],"weights":{"num_bits":2,"group_size":32}}}})";
  Module m(two_groups);
  m.add("weight_packed", DType::i32, {64, 4}).add("weight_scale", DType::bf16, {64, 2});
  EXPECT_EQ(m.get()->bits, 2);
  m.scheme().modules.clear();
  m.add("weight_shape", DType::i64, {2}).value("weight_shape", two(64, 64));
  expect_error(m.get(), "4 words and 2 scales per row");
  EXPECT_EQ(m.add("weight_packed", DType::i32, {64, 8}).get()->bits, 4);
  EXPECT_EQ(m.add("weight_packed", DType::i32, {64, 16}).get()->bits, 8);
  m.drop("weight_shape");
  m.scheme().any[1].group = 16;  // 8 words may be 64 codes of 4 bits or 32 of 8
  expect_error(m.add("weight_packed", DType::i32, {64, 8}).get(),
               "both config_groups.\"a\" says 4 bits");
  m.scheme().any.clear();
  expect_error(m.get(), "the configuration does not say how it is quantised");
}

TEST(group_weights, int_quantized_bytes_have_scales_by_row_and_signed_zero_points) {
  Module m(ct(R"({"num_bits":8,"strategy":"channel"})"));
  m.add("weight", DType::i8, {4, 6}, 3).add("weight_scale", DType::bf16, {4, 1}, 0x40);
  auto w = m.get();
  ASSERT_TRUE(w.has_value()) << w.error().message();
  EXPECT_EQ(describe_format(*w), "INT8 per row");
  std::vector<float> row(6);
  decode_row(*w, 1, row);
  EXPECT_EQ(row[5], 9.0f);
  m.add("weight_zero_point", DType::i8, {4, 1}, 1);
  decode_row(*m.get(), 1, row);
  EXPECT_EQ(row[5], 6.0f);
  expect_error(m.add("weight_zero_point", DType::i8, {3, 1}).get(), "expected [4, 1]");
  expect_error(m.drop("weight_scale").get(), "not m.weight_scale");
}

Module gptq(const std::string& more = "") {
  Module m(R"({"quant_method":"gptq","bits":4,"group_size":32)" + more + "}");
  m.add("qweight", DType::i32, {8, 64}).add("qzeros", DType::i32, {2, 8}, 0x77);
  m.add("scales", DType::f16, {2, 64}, 0x3C);
  return m;
}

TEST(group_weights, gptq_zero_points_follow_the_checkpoint_format) {
  EXPECT_EQ(describe_format(*gptq().get()), "GPTQ INT4 g32");
  EXPECT_EQ(zero_point(*gptq().get(), 0, 0), 8);
  EXPECT_EQ(zero_point(*gptq(R"(,"checkpoint_format":"gptq_v2")").get(), 0, 0), 7);
  auto round = [](const char* packing) {
    Module m = gptq();
    auto scheme = read_hf_quantization(
        std::string(
            R"({"quantization_config":{"quant_method":"auto-round","bits":4,"group_size":32)") +
        packing + "}}");
    m.scheme() = *scheme;
    return zero_point(*m.get(), 0, 0);
  };
  EXPECT_EQ(round(""), 8);
  EXPECT_EQ(round(R"(,"packing_format":"auto_round:auto_gptq")"), 8);
  EXPECT_EQ(round(R"(,"backend":"auto_round:gptq:exllamav2")"), 8);
  EXPECT_EQ(round(R"(,"packing_format":"auto_round:gptqmodel")"), 7);
  EXPECT_EQ(round(R"(,"packing_format":"auto_round")"), 7);
}

TEST(group_weights, gptq_and_awq_shapes_that_lie_are_refused) {
  expect_error(gptq().drop("scales").get(), "not m.scales");
  expect_error(gptq().drop("qzeros").get(), "not m.qzeros");
  expect_error(gptq().add("qzeros", DType::i32, {1, 8}).get(),
               "m.qzeros: found shape [1, 8], expected [2, 8]");
  expect_error(gptq().add("qzeros", DType::i32, {2, 80}).get(), "m.qweight: found shape");
  expect_error(gptq().add("scales", DType::f16, {2, 65}).get(), "m.qzeros: found shape");
  expect_error(gptq().add("qweight", DType::i32, {8, 63}).get(), "words of 64 rows");
  expect_error(gptq().add("g_idx", DType::i32, {65}).get(), "words of 64 rows");
  expect_error(gptq().add("g_idx", DType::i32, {64}, 0x22).get(),
               "found group 572662306 for column 0");
  expect_error(gptq().add("qzeros", DType::i32, {2, 8}, '\xFF').get(), "found the zero point 16");
  expect_error(gptq()
                   .add("qweight", DType::i32, {8, 64})
                   .add("qzeros", DType::i32, {3, 8})
                   .add("scales", DType::f16, {3, 64})
                   .get(),
               "3 groups, but");
  Module other(R"({"quant_method":"gptq","bits":8,"group_size":32})");
  other.add("qweight", DType::i32, {8, 64})
      .add("qzeros", DType::i32, {2, 8})
      .add("scales", DType::f16, {2, 64});
  expect_error(other.get(), "found 4-bit codes of 64 columns and 2 groups, but");
  Module awq(R"({"quant_method":"awq","bits":4,"group_size":32})");
  awq.add("qweight", DType::i32, {64, 8})
      .add("qzeros", DType::i32, {2, 8})
      .add("scales", DType::f16, {2, 64});
  EXPECT_EQ(describe_format(*awq.get()), "AWQ INT4 g32");
  expect_error(awq.add("qzeros", DType::i32, {2, 9}).get(),
               "m.qzeros: found shape [2, 9], expected [2, 8]");
}

Module mlx(const std::string& more = "") {
  Module m(R"({"group_size":32,"bits":4)" + more + "}", "quantization");
  m.add("weight", DType::u32, {6, 8})
      .add("scales", DType::bf16, {6, 2})
      .add("biases", DType::bf16, {6, 2});
  return m;
}

TEST(group_weights, mlx_entries_of_modules_go_before_the_top_level) {
  EXPECT_EQ(describe_format(*mlx().get()), "MLX 4-bit g32");
  auto narrow = mlx(R"(,"m":{"bits":2,"group_size":64})").get();
  ASSERT_TRUE(narrow.has_value()) << narrow.error().message();
  EXPECT_EQ(describe_format(*narrow), "MLX 2-bit g64");
  EXPECT_EQ(narrow->columns, 128);
  EXPECT_EQ(describe_format(*mlx(R"(,"model.m":{"bits":2,"group_size":null})").get()),
            "MLX 2-bit g64");
  EXPECT_EQ(describe_format(*mlx(R"(,"m":false)").get()),
            "MLX 4-bit g32");  // the tensors say otherwise
}

TEST(group_weights, mlx_modes_are_told_by_the_config_and_checked) {
  Module m(R"({"group_size":32,"bits":4,"mode":"mxfp4"})", "quantization");
  m.add("weight", DType::u32, {6, 8}).add("scales", DType::u8, {6, 2}, 0x7F);
  EXPECT_EQ(describe_format(*m.get()), "MXFP4");
  expect_error(m.add("scales", DType::u8, {6, 2}, '\xFF').get(), "found nan");
  expect_error(m.add("scales", DType::bf16, {6, 2}).get(),
               "found dtype BF16, expected U8 or F8_E8M0");
  Module nvfp4(R"({"group_size":16,"bits":4,"mode":"nvfp4"})", "quantization");
  nvfp4.add("weight", DType::u32, {6, 8}).add("scales", DType::u8, {6, 4}, 0x38);
  EXPECT_EQ(describe_format(*nvfp4.get()), "NVFP4");
  EXPECT_EQ(scale_value(*nvfp4.get(), 0, 0), 1.0f);
  expect_error(nvfp4.add("scales", DType::u8, {6, 4}, 0x7F).get(), "found nan");
  Module wrong(R"({"group_size":32,"bits":8,"mode":"nvfp4"})", "quantization");
  wrong.add("weight", DType::u32, {6, 16}).add("scales", DType::u8, {6, 2});
  expect_error(wrong.get(), "found 8-bit codes in groups of 32, which is not nvfp4");
}

TEST(group_weights, mlx_shapes_that_lie_are_refused) {
  expect_error(mlx().drop("scales").get(), "not m.scales");
  expect_error(mlx().drop("biases").get(), "not m.biases");
  expect_error(mlx().add("scales", DType::bf16, {6, 3}).get(),
               "found 8 words and 3 scales per row, but");
  expect_error(mlx().add("scales", DType::bf16, {5, 2}).get(),
               "m.scales: found shape [5, 2], expected [6, 2]");
  expect_error(mlx().add("biases", DType::f16, {6, 2}).get(), "found dtype F16, expected BF16");
  expect_error(mlx().add("biases", DType::bf16, {6, 1}).get(), "m.biases: found shape [6, 1]");
  expect_error(mlx().add("scales", DType::u8, {6, 2}).get(), "found dtype U8");
  expect_error(mlx(R"(,"m":{"bits":3})").get(), "says 3 bits");
  expect_error(mlx()
                   .add("scales", DType::bf16, {6, 2}, '\x7F')
                   .add("biases", DType::bf16, {6, 2}, '\xFF')
                   .get(),
               "m.biases: found");
}

Module nvfp4(const char* method = "compressed-tensors") {
  Module m(std::string(R"({"quant_method":")") + method + R"(","quant_algo":"NVFP4"})");
  m.add("weight_packed", DType::u8, {4, 32}).add("weight_scale", DType::f8_e4m3, {4, 4}, 0x38);
  m.add("weight_global_scale", DType::f32, {1}).value("weight_global_scale", test::floats({4.0f}));
  return m;
}

TEST(group_weights, the_scale_of_the_matrix_divides_or_multiplies_by_its_name) {
  EXPECT_EQ(scale_value(*nvfp4().get(), 0, 0), 0.25f);
  Module m("{\"quant_method\":\"modelopt\",\"quant_algo\":\"NVFP4\"}");
  m.add("weight", DType::u8, {4, 32}).add("weight_scale", DType::f8_e4m3, {4, 4}, 0x38);
  expect_error(m.get(), "not m.weight_scale_2 (quant_method modelopt)");
  m.add("weight_scale_2", DType::f32, {}).value("weight_scale_2", test::floats({4.0f}));
  EXPECT_EQ(scale_value(*m.get(), 0, 0), 4.0f);
  m.add("weight_global_scale", DType::f32, {1});
  expect_error(m.get(), "expected one of them");
  // A name that contradicts the method is not taken.
  expect_error(nvfp4("modelopt").get(), "not m.weight_scale_2");
  m.drop("weight_global_scale").scheme().method = "compressed-tensors";
  expect_error(m.get(), "not m.weight_global_scale (quant_method compressed-tensors)");
}

TEST(group_weights, wrong_parts_of_fp4_and_fp8_are_refused) {
  for (float wrong : {0.0f, -1.0f, INFINITY, NAN, 1e-40f}) {
    expect_error(nvfp4().value("weight_global_scale", test::floats({wrong})).get(),
                 "expected a finite scale above 0");
  }
  expect_error(nvfp4().add("weight_global_scale", DType::f32, {2}).get(), "expected one value");
  expect_error(nvfp4().add("weight_global_scale", DType::bf16, {1}).get(), "found dtype BF16");
  expect_error(nvfp4().drop("weight_global_scale").get(), "not m.weight_global_scale");
  expect_error(nvfp4().drop("weight_scale").get(), "not m.weight_scale");
  expect_error(nvfp4().add("weight_scale", DType::f8_e4m3, {4, 2}).get(), "expected [4, 4]");
  expect_error(nvfp4().add("weight_scale", DType::f8_e4m3, {4, 4}, 0x7F).get(), "found nan");
  expect_error(nvfp4().add("weight_scale", DType::bf16, {4, 4}).get(), "found dtype BF16");
  expect_error(nvfp4().add("weight_packed", DType::u8, {4, 30}).get(), "whole groups of 16");
  EXPECT_EQ(describe_format(*nvfp4().add("weight_scale", DType::u8, {4, 2}, 0x70).get()), "MXFP4");
  EXPECT_EQ(describe_format(*nvfp4().add("weight_scale", DType::f8_e8m0, {4, 2}, 0x70).get()),
            "MXFP4");
  Module mx(ct(R"({"num_bits":8,"type":"float","group_size":32})"));
  mx.add("weight", DType::f8_e4m3, {4, 64}).add("weight_scale", DType::f8_e8m0, {4, 2}, 0x70);
  EXPECT_EQ(describe_format(*mx.get()), "MXFP8");
  expect_error(mx.add("weight_scale", DType::u8, {4, 3}).get(), "expected [4, 2]");
  expect_error(mx.add("weight_scale", DType::u8, {4, 2}, '\xFF').get(), "found nan");
}

TEST(group_weights, module_names_are_compared_without_the_prefixes_that_differ) {
  for (const char* name :
       {"model.language_model.layers.0.mlp.up_proj", "language_model.model.layers.0.mlp.up_proj",
        "model.layers.0.mlp.up_proj", "layers.0.mlp.up_proj"}) {
    EXPECT_EQ(module_key(name), "layers.0.mlp.up_proj");
  }
  EXPECT_EQ(module_key("language_model.lm_head"), "lm_head");
  EXPECT_EQ(module_key("model.vision_tower.ln_pre"), "vision_tower.ln_pre");
}

TEST(group_weights, a_matrix_is_there_also_when_it_is_packed) {
  Module m = gptq();
  auto find = [&](const std::string& part) -> const TensorView* {
    static TensorView held;
    return part == "m.qweight" ? &held : nullptr;
  };
  EXPECT_TRUE(holds_weight("m.weight", find));
  EXPECT_FALSE(holds_weight("n.weight", find));
  EXPECT_FALSE(holds_weight("m", find));
  expect_error(m.get("n.weight"), "tensor n.weight is missing");
}

}  // namespace
}  // namespace bise
