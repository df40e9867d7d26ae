// Every format decodes the goldens of the reference tools exactly.
#include "tensor/weight_format.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>

#include "base/json.h"
#include "io/file_builders.h"
#include "io/quant_scheme.h"
#include "io/safetensors.h"

namespace bise {
namespace {

const std::string kGolden = std::string(BISE_GOLDEN_DIR) + "/quant/";
constexpr int64_t kRows = 32, kColumns = 512;

struct Golden {
  std::string bytes;
  std::vector<TensorView> tensors;
  const TensorView* find(const std::string& name) const {
    for (const TensorView& tensor : tensors) {
      if (tensor.name == name) return &tensor;
    }
    return nullptr;
  }
};

void load(const std::string& file, Golden& golden) {
  golden.bytes = test::slurp(kGolden + file);
  auto tensors = parse_safetensors(as_bytes(golden.bytes), file);
  ASSERT_TRUE(tensors.has_value()) << tensors.error().message();
  golden.tensors = *tensors;
}

Json golden_index() { return parse_json(test::slurp(kGolden + "index.json")).value()["formats"]; }

// -0 and +0 count as equal; everything else by value.
void expect_decodes_to(const WeightView& weight, const TensorView& expected) {
  ASSERT_EQ(expected.shape, (std::vector<int64_t>{kRows, kColumns}));
  int wrong = 0;
  std::vector<float> row(kColumns);
  for (int64_t r = 0; r < kRows; ++r) {
    decode_row(weight, r, row);
    for (int64_t c = 0; c < kColumns; ++c) {
      float want = load_le<float>(expected.bytes.data() + 4 * (r * kColumns + c));
      if (row[c] != want && ++wrong <= 3) {
        ADD_FAILURE() << weight.name << " [" << r << ", " << c << "]: " << row[c] << ", not "
                      << want;
      }
    }
  }
  EXPECT_EQ(wrong, 0);
}

TEST(weight_format, the_registry_is_in_the_order_of_its_ids) {
  std::span<const WeightFormat> formats = weight_formats();
  for (size_t i = 0; i < formats.size(); ++i) {
    EXPECT_EQ(static_cast<size_t>(formats[i].id), i);
    EXPECT_EQ(&weight_format(formats[i].id), &formats[i]);
    if (formats[i].ggml_type >= 0) {
      EXPECT_EQ(weight_format_of_ggml(formats[i].ggml_type), &formats[i]);
    }
  }
  EXPECT_EQ(weight_format_of_ggml(-1), nullptr);
  EXPECT_EQ(weight_format_of_ggml(41), nullptr);
}

// The weight of a golden, through the same code as a checkpoint's.
Result<WeightView> assemble(const Json& entry, const Golden& golden, const std::string& module) {
  if (entry.contains("type")) {
    TensorView data = *golden.find("data");
    data.shape = {kRows, kColumns};
    data.ggml_type = entry["type_id"].get<int>();
    return assemble_weight("weight", QuantScheme(), [&](const std::string& name) {
      return name == "weight" ? &data : nullptr;
    });
  }
  const Json& config = entry["config"];
  Json top;
  top[config.contains("quant_method") ? "quantization_config" : "quantization"] = config;
  auto scheme = read_hf_quantization(top.dump());
  if (!scheme) return scheme.error();
  auto weight = assemble_weight(module + ".weight", *scheme, [&](const std::string& name) {
    return name.starts_with(module + ".") ? golden.find(name.substr(module.size() + 1)) : nullptr;
  });
  if (!weight) return weight;
  auto checked = check_weight(*weight);
  if (!checked) return checked.error();
  return weight;
}

// All 59 tools and types: every row, and pieces of rows at odd places, bit by bit (-0 equals +0).
TEST(weight_format, every_golden_decodes_exactly) {
  int tested = 0;
  std::set<std::string> names;
  const Json index = golden_index();
  for (const auto& [name, entry] : index.items()) {
    SCOPED_TRACE(name);
    Golden golden;
    load(entry["file"].get<std::string>(), golden);
    auto weight = assemble(entry, golden, entry.value("module", ""));
    ASSERT_TRUE(weight.has_value()) << weight.error().message();
    const TensorView& expected = *golden.find("dequantised");
    expect_decodes_to(*weight, expected);
    if (entry.contains("type")) {
      EXPECT_EQ(describe_format(*weight), entry["type"].get<std::string>());
    }
    names.insert(describe_format(*weight));
    bool has_input = golden.find("activation_scale") || golden.find("input_scale");
    EXPECT_EQ(weight->activation_scale > 0, has_input);
    const WeightFormat& format = weight_format(weight->format);
    std::mt19937 random(3);
    for (int piece = 0; piece < 200; ++piece) {
      const int64_t step = format.block_elements;
      const int64_t row = static_cast<int64_t>(random() % kRows);
      const int64_t first = static_cast<int64_t>(random() % (kColumns / step)) * step;
      const int64_t count =
          (1 + static_cast<int64_t>(random() % ((kColumns - first) / step))) * step;
      std::vector<float> part(static_cast<size_t>(count));
      format.decode(*weight, row, first, part);
      for (int64_t i = 0; i < count; ++i) {
        ASSERT_EQ(part[static_cast<size_t>(i)],
                  load_le<float>(expected.bytes.data() + 4 * (row * kColumns + first + i)))
            << row << " " << first << "+" << i;
      }
    }
    ++tested;
  }
  EXPECT_EQ(tested, 59);
  for (const char* name :
       {"INT4 g128", "INT8 g128", "INT3 g128", "GPTQ INT4 g128", "AWQ INT4 g128", "MLX 4-bit g64",
        "MLX 3-bit g64", "MLX 6-bit g64", "MLX 4-bit g32", "MLX 4-bit g128", "MLX 8-bit g32",
        "MLX 5-bit g128", "MLX 2-bit g64", "NVFP4", "MXFP4", "MXFP8", "FP8"}) {
    EXPECT_EQ(names.count(name), 1u) << name;
  }
}

TEST(weight_format, plain_float32_is_read_as_it_is) {
  std::string values = test::floats({1.5f, -2.0f, 3.25f, 0x1p-140f, INFINITY, -0.0f});
  auto weight = make_weight_view(FormatId::f32, 2, 3, as_bytes(values), "w");
  ASSERT_TRUE(weight.has_value());
  std::vector<float> row(3);
  decode_row(*weight, 1, row);
  EXPECT_EQ(std::memcmp(row.data(), values.data() + 12, 12), 0);
}

TEST(weight_format, a_part_of_a_row_decodes_as_in_the_whole_row) {
  std::mt19937 random(7);
  for (const WeightFormat& format : weight_formats()) {
    if (format.block_bytes == 0) continue;  // group_codes_test
    SCOPED_TRACE(format.name);
    const int64_t columns = 4 * 256, rows = 3;
    std::string codes(static_cast<size_t>(*weight_row_bytes(format, columns)) * rows, '\0');
    for (char& c : codes) c = static_cast<char>(random() & 0x3F);
    auto weight = make_weight_view(format.id, rows, columns, as_bytes(codes), "w");
    ASSERT_TRUE(weight.has_value());
    std::string scales = test::floats(std::vector<float>(rows * 11, 0.5f));
    for (size_t i = 0; i < scales.size(); i += 4) scales[i + 1] = static_cast<char>(i);
    if (format.id == FormatId::fp8_e4m3) {  // blocks that do not divide rows or columns
      weight->scale = {"scale", DType::f32, {2, 11}, as_bytes(scales).first(22 * 4), -1};
      weight->scale_block_rows = 2;
      weight->scale_block_columns = 100;
    }
    std::vector<float> whole(columns);
    decode_row(*weight, 2, whole);
    for (int64_t first = 0; first < columns; first += format.block_elements * 3) {
      int64_t count = std::min<int64_t>(columns - first, format.block_elements * 2);
      std::vector<float> part(static_cast<size_t>(count));
      format.decode(*weight, 2, first, part);
      EXPECT_EQ(std::memcmp(part.data(), &whole[first], part.size() * 4), 0) << first;
    }
  }
}

TEST(weight_format, interleaved_rows_are_read_in_half_split_order) {
  // Two heads of 4 rows: the file holds pairs (0, 2), (1, 3) of each head as neighbours.
  std::string values = test::floats({0, 2, 1, 3, 4, 6, 5, 7});
  auto weight = make_weight_view(FormatId::f32, 8, 1, as_bytes(values), "wq");
  ASSERT_TRUE(weight.has_value());
  weight->order.interleaved_head = 4;
  for (int64_t row = 0; row < 8; ++row) {
    float value = -1;
    decode_row(*weight, row, {&value, 1});
    EXPECT_EQ(value, static_cast<float>(row));
  }
}

TEST(weight_format, scales_by_row_follow_the_stored_order) {
  std::string codes(4, 0x38);  // 1.0
  std::string scales = test::floats({10, 30, 20, 40});
  auto weight = make_weight_view(FormatId::fp8_e4m3, 4, 1, as_bytes(codes), "wq");
  ASSERT_TRUE(weight.has_value());
  weight->scale = {"scale", DType::f32, {4, 1}, as_bytes(scales), -1};
  weight->order.interleaved_head = 4;
  for (int64_t row = 0; row < 4; ++row) {
    float value = -1;
    decode_row(*weight, row, {&value, 1});
    EXPECT_EQ(value, static_cast<float>(10 * (row + 1)));
  }
}

TEST(weight_format, e4m3_has_the_published_values) {
  std::string codes;
  for (int i = 0; i < 256; ++i) codes += static_cast<char>(i);
  std::string one = test::floats({1.0f});
  auto weight = make_weight_view(FormatId::fp8_e4m3, 1, 256, as_bytes(codes), "w");
  ASSERT_TRUE(weight.has_value());
  weight->scale = {"scale", DType::f32, {}, as_bytes(one), -1};
  std::vector<float> row(256);
  decode_row(*weight, 0, row);
  EXPECT_EQ(row[0x01], 0x1p-9f);
  EXPECT_EQ(row[0x08], 0x1p-6f);
  EXPECT_EQ(row[0x38], 1.0f);
  EXPECT_EQ(row[0x7E], 448.0f);
  EXPECT_EQ(row[0xFE], -448.0f);
  EXPECT_TRUE(std::isnan(row[0x7F]) && std::isnan(row[0xFF]));
}

TEST(weight_format, mxfp4_exponents_reach_into_the_subnormals) {
  for (int e : {0, 1, 2, 127, 128, 254, 255}) {
    std::string block(17, 0x11);  // code 1 = 0.5
    block[0] = static_cast<char>(e);
    auto weight = make_weight_view(FormatId::mxfp4_gguf, 1, 32, as_bytes(block), "w");
    ASSERT_TRUE(weight.has_value());
    std::vector<float> row(32);
    decode_row(*weight, 0, row);
    EXPECT_EQ(row[0], std::ldexp(1.0f, e - 128)) << e;
  }
}

TEST(weight_format, sizes_that_disagree_are_refused) {
  std::string bytes(100, '\0');
  test::expect_error(make_weight_view(FormatId::q4_1, 5, 32, as_bytes(bytes).first(99), "w"),
                     "tensor w: found 99 bytes, expected 100 for [5, 32] in Q4_1");
  test::expect_error(make_weight_view(FormatId::q4_k, 1, 576, as_bytes(bytes), "w"),
                     "rows of 576 elements do not divide into blocks of 256 (Q4_K)");
  test::expect_error(make_weight_view(FormatId::f32, INT64_MAX, 1, as_bytes(bytes), "w"),
                     "tensor w");
  for (auto [rows, columns] : {std::pair{0, 4}, {4, 0}, {-1, 1}, {1, -1}}) {
    test::expect_error(make_weight_view(FormatId::f32, rows, columns, Bytes(), "w"),
                       "expected a matrix with elements");
  }
  test::expect_error(weight_row_bytes(weight_format(FormatId::f32), INT64_MAX), "overflows");
}

}  // namespace
}  // namespace bise
