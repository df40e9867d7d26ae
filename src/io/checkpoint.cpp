#include "io/checkpoint.h"

#include "base/float_types.h"
#include "io/checkpoint_files.h"

namespace bise {

const char* layout_name(Layout layout) {
  switch (layout) {
    case Layout::hf: return "hf";
    case Layout::mistral: return "mistral";
    case Layout::gguf: break;
  }
  return "gguf";
}

struct Checkpoint::State {
  std::string path;  // as given
  CheckpointFiles files;

  Result<const TensorView*> get(const std::string& name) const {
    auto it = files.tensors.find(name);
    if (it != files.tensors.end()) return &it->second;
    return Error(ErrorCode::not_found, "tensor " + name + " is missing");
  }
};

Checkpoint::Checkpoint(std::unique_ptr<State> state) : state_(std::move(state)) {}
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;
Checkpoint::~Checkpoint() = default;

Result<Checkpoint> Checkpoint::open(const std::string& path, const CheckpointOptions& options,
                                    const Log& log) {
  CheckpointFiles files = TRY(open_checkpoint_files(path, options, log));
  return Checkpoint(std::make_unique<State>(State{path, std::move(files)}));
}

const std::string& Checkpoint::path() const { return state_->path; }
Layout Checkpoint::layout() const { return state_->files.layout; }
const std::map<std::string, TensorView>& Checkpoint::tensors() const {
  return state_->files.tensors;
}
const TensorView* Checkpoint::find(const std::string& name) const {
  auto it = state_->files.tensors.find(name);
  return it == state_->files.tensors.end() ? nullptr : &it->second;
}

bool Checkpoint::has_weight(const std::string& name) const {
  return holds_weight(name, [this](const std::string& part) { return find(part); });
}

Result<WeightView> Checkpoint::weight_layout(const std::string& name) const {
  return assemble_weight(name, state_->files.scheme,
                         [this](const std::string& part) { return find(part); })
      .with_context(state_->path);
}

Result<WeightView> Checkpoint::weight(const std::string& name) const {
  WeightView view = TRY(weight_layout(name));
  TRY(check_weight(view).with_context(state_->path));
  return view;
}

Result<std::vector<float>> Checkpoint::values(const std::string& name) const {
  const TensorView* t = TRY(state_->get(name).with_context(state_->path));
  uint64_t count = static_cast<uint64_t>(t->num_elements());
  uint32_t width = dtype_bytes(t->dtype);
  if (t->dtype != DType::f32 && t->dtype != DType::f16 && t->dtype != DType::bf16) {
    return Error(ErrorCode::unsupported, state_->path + ": tensor " + name + ": found " +
                                             std::string(dtype_name(t->dtype)) +
                                             ", expected F32, F16 or BF16");
  }
  CHECK(t->bytes.size() == count * width);  // the parsers see to it
  std::vector<float> out(count);
  for (uint64_t i = 0; i < count; ++i) {
    const std::byte* p = t->bytes.data() + i * width;
    if (t->dtype == DType::f32) out[i] = load_le<float>(p);
    else if (t->dtype == DType::f16) out[i] = f16_to_f32(load_le<uint16_t>(p));
    else out[i] = bf16_to_f32(load_le<uint16_t>(p));
  }
  return out;
}

const std::string& Checkpoint::config_json() const { return state_->files.config_json; }
const std::string& Checkpoint::params_json() const { return state_->files.params_json; }
std::string Checkpoint::file_path(const std::string& name) const {
  std::string path = state_->files.folder + "/" + name;
  return file_exists(path) ? path : "";
}
const GgufFile* Checkpoint::gguf() const {
  return state_->files.ggufs.empty() ? nullptr : &state_->files.ggufs.front();
}
const GgufFile* Checkpoint::mmproj() const {
  return state_->files.projector ? &*state_->files.projector : nullptr;
}
std::vector<const FileMap*> Checkpoint::maps() const {
  std::vector<const FileMap*> maps;
  for (const FileMap& map : state_->files.maps) maps.push_back(&map);
  for (const GgufFile& file : state_->files.ggufs) maps.push_back(&*file.map());
  if (state_->files.projector) maps.push_back(&*state_->files.projector->map());
  return maps;
}
void Checkpoint::drop(const WeightView& w) const {
  auto drop_part = [&](const FileMap& map, Bytes part) {
    const std::byte *begin = map.bytes().data(), *end = begin + map.bytes().size();
    if (!std::less<>()(part.data(), begin) && !std::less<>()(end, part.data() + part.size())) {
      map.drop(part);
    }
  };
  for (const FileMap* map : maps()) {
    drop_part(*map, w.codes);
    w.each_side_part([&](Bytes part) { if (!part.empty()) drop_part(*map, part); });
  }
}
uint64_t Checkpoint::total_bytes() const { return state_->files.total_bytes; }
const std::vector<std::string>& Checkpoint::files() const { return state_->files.paths; }

}  // namespace bise
