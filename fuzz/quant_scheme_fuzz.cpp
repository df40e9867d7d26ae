// Bytes as config.json and as params.json: what they say about quantisation, or one line of
// refusal. Behind a zero byte stand the tensors of a module "m", described in a few bytes each:
//   name, dtype, rank, sizes …; the rest of the input, repeated, fills all of them.
// What assembles must decode within its bytes.
#include <cmath>
#include <map>
#include <vector>

#include "io/quant_scheme.h"
#include "tensor/group_codes.h"

using namespace bise;

namespace {

constexpr const char* kParts[] = {"weight",         "weight_packed",
                                  "qweight",        "weight_scale",
                                  "weight_shape",   "weight_zero_point",
                                  "weight_g_idx",   "weight_global_scale",
                                  "weight_scale_2", "weight_scale_inv",
                                  "input_scale",    "scales",
                                  "biases",         "qzeros",
                                  "g_idx",          "scale"};
constexpr DType kTypes[] = {DType::f32,     DType::f16, DType::bf16, DType::f8_e4m3,
                            DType::f8_e8m0, DType::i8,  DType::u8,   DType::i32,
                            DType::u32,     DType::i64, DType::block};

struct Held {
  std::vector<std::byte> bytes;
  TensorView view;
};

void check_line(const Error& error) {
  CHECK(error.message().find('\n') == std::string::npos && !error.message().empty());
}

// The tensors that `data` describes; false when it ends early.
void read_tensors(const uint8_t* data, size_t size, std::map<std::string, Held>& out) {
  size_t at = 0;
  auto next = [&]() -> uint8_t { return at < size ? data[at++] : 0; };
  const size_t count = next() % 8;
  for (size_t i = 0; i < count; ++i) {
    Held held;
    held.view.name = std::string("m.") + kParts[next() % std::size(kParts)];
    held.view.dtype = kTypes[next() % std::size(kTypes)];
    const size_t rank = next() % 4;
    const bool block = held.view.dtype == DType::block;
    uint64_t bytes = block ? 36 : dtype_bytes(held.view.dtype);
    for (size_t d = 0; d < rank; ++d) {
      held.view.shape.push_back(next());
      bytes *= static_cast<uint64_t>(held.view.shape.back());
    }
    if (block) {
      held.view.ggml_type = next() % 48;
      bytes /= 64;  // NVFP4's blocks; other types do not fit and say so
    }
    if (bytes > 1 << 20) break;
    held.bytes.resize(bytes);
    std::string name = held.view.name;
    out[name] = std::move(held);
  }
  for (auto& [name, held] : out) {
    for (size_t i = 0; i < held.bytes.size(); ++i) {
      held.bytes[i] = std::byte{at < size ? data[at + i % (size - at)] : uint8_t{0}};
    }
    held.view.bytes = held.bytes;
  }
}

void assemble(const QuantScheme& scheme, const std::map<std::string, Held>& tensors) {
  auto weight =
      assemble_weight("m.weight", scheme, [&](const std::string& name) -> const TensorView* {
        auto it = tensors.find(name);
        return it == tensors.end() ? nullptr : &it->second.view;
      });
  if (!weight) return check_line(weight.error());
  CHECK(!describe_format(*weight).empty());
  auto checked = check_weight(*weight);
  if (!checked) return check_line(checked.error());
  CHECK(weight->rows > 0 && weight->columns > 0 && weight->columns < 1 << 20);
  std::vector<float> row(static_cast<size_t>(weight->columns));
  for (int64_t r = 0; r < weight->rows; ++r) {
    (void)check_codes(*weight, r);
    decode_row(*weight, r, row);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  size_t text_size = 0;
  while (text_size < size && data[text_size] != 0) ++text_size;
  std::string text(reinterpret_cast<const char*>(data), text_size);
  std::map<std::string, Held> tensors;
  if (text_size < size) read_tensors(data + text_size + 1, size - text_size - 1, tensors);
  for (const auto& scheme : {read_hf_quantization(text), read_mistral_quantization(text)}) {
    if (!scheme) {
      check_line(scheme.error());
      continue;
    }
    for (const QuantParams& p : scheme->any) {
      CHECK(p.block_rows >= 0 && (p.block_rows == 0) == (p.block_columns == 0));
      CHECK(p.group >= kWholeRow && p.bits >= 0);
    }
    assemble(*scheme, tensors);
  }
  return 0;
}
