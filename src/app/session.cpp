#include "app/session.h"

#include <algorithm>
#include <cstdio>
#include <functional>

#include "app/model_source.h"
#include "app/terminal.h"

namespace bise {
namespace {

constexpr uint64_t kMaxConfigBytes = uint64_t{16} << 20;

KvDType kv_dtype(const CommonOptions& options) {
  if (const auto type = kv_type_of(options.kv_cache_dtype)) return *type;
  return options.precision == "reference" ? KvDType::f32 : KvDType::bf16;
}

// What streams is said before it starts, with what to expect.
StreamForecast announce(const Checkpoint& checkpoint, const MemoryPlan& plan, Bytes first) {
  if (plan.device && plan.device->host_layers > 0) std::fprintf(stderr, "%s\n", device_line(*plan.device).c_str());
  if (!plan.streams) return {};
  std::fprintf(stderr, "%s\n", plan_line(plan).c_str());
  for (const FileMap* map : checkpoint.maps()) {
    const std::byte* begin = map->bytes().data();
    if (std::less<>()(first.data(), begin) || !std::less<>()(first.data(), begin + map->bytes().size())) continue;
    return forecast_stream(plan, map->path(), static_cast<uint64_t>(first.data() - begin));
  }
  return {};
}

Result<std::unique_ptr<Model>> load_model(Session& session, const CommonOptions& options) {
  constexpr double kProductSeconds = 0.2;
  ProgressBar bar("loading");
  ModelLoadOptions load;
  load.config = config_options(options);
  load.weights.memory = memory_request(options, kv_dtype(options), *session.backend);
  load.weights.memory.num_threads = session.backend->num_threads();
  load.weights.on_plan = [&](const MemoryPlan& plan, Bytes first) {
    if (plan.device) session.log.info(device_line(*plan.device));
    session.forecast = announce(*session.checkpoint, plan, first);
  };
  load.weights.progress = [&bar](uint64_t done, uint64_t total) {
    bar.update(done, total);
    return !interrupted();
  };
  auto model = std::make_unique<Model>(
      TRY(Model::load(*session.checkpoint, *session.backend, load, session.log)));
  const MemoryPlan& plan = model->memory_plan();
  if (plan.streams && session.forecast.step_bytes > 0) {
    session.forecast.product_bytes_per_s = session.backend->measure_streamed_products(kProductSeconds);
    std::fprintf(stderr, "%s\n", forecast_line(session.forecast).c_str());
  }
  return model;
}

}  // namespace

Result<std::unique_ptr<Backend>> open_backend(const CommonOptions& options, const Log& log) {
  BackendOptions wanted;
  wanted.num_threads = options.threads;
  wanted.isa = options.isa;
  wanted.precision = options.precision == "reference" ? Precision::reference : Precision::fast;
  wanted.fp8_static_activations = options.fp8_static_activations;
  wanted.row_invariant = options.deterministic;
  if (options.numa == "auto") wanted.nodes = memory_nodes();
  return create_backend(options.backend, wanted, log);
}

EngineOptions engine_options(const Session& session, const CommonOptions& options) {
  EngineOptions engine = engine_options(options);
  engine.context = session.model->memory_plan().context;
  if (engine.context == 0) engine.context = session.model->config().context_length;
  return engine;
}

EngineOptions engine_options(const CommonOptions& options) {
  EngineOptions engine;
  engine.context = options.context;
  engine.kv_dtype = kv_dtype(options);
  return engine;
}

Result<std::unique_ptr<Session>> open_session(const std::string& model,
                                              const SessionOptions& options, const Log& log) {
  const CommonOptions& common = options.common;
  double start = now_seconds();
  auto session = std::make_unique<Session>();
  session->log = log;
  session->path = TRY(resolve_model(model, model_places_from_environment()));
  session->checkpoint =
      std::make_unique<Checkpoint>(TRY(open_checkpoint(session->path, common, log)));
  // What can be refused without the weights is refused before they are loaded.
  ModelConfig config = TRY(read_model_config(*session->checkpoint, config_options(common), Log()));
  auto chat = open_chat(session->path, config.vision ? &*config.vision : nullptr, log);
  if (chat && chat->service->tokenizer().vocab_size() != config.vocab_size) {
    chat = vocabulary_mismatch(*chat, config);
  }
  if (chat) {
    session->chat = *std::move(chat);
    session->stop_tokens = session->chat.service->stop_tokens();
  } else if (options.needs_text) {
    return std::move(chat).error();
  } else {
    log.info("only ids can be read: " + chat.error().message());
  }
  for (int32_t id : config.eos_tokens) {
    auto& stops = session->stop_tokens;
    if (std::find(stops.begin(), stops.end(), id) == stops.end()) stops.push_back(id);
  }
  std::string generation_config = session->checkpoint->file_path("generation_config.json");
  if (!generation_config.empty() && file_exists(generation_config)) {
    session->generation_config = TRY(read_file(generation_config, kMaxConfigBytes));
  }
  session->processing = image_processing(common, session->checkpoint->layout());
  session->backend = TRY(open_backend(common, log));
  log.info("backend: " + session->backend->description());
  auto loaded = load_model(*session, common);
  if (!loaded && loaded.error().code() == ErrorCode::out_of_memory && common.backend == "auto" &&
      session->backend->host() != nullptr) {
    log.warning(loaded.error().message() + "; the CPU runs it");
    CommonOptions on_cpu = common;
    on_cpu.backend = "cpu";
    session->backend = TRY(open_backend(on_cpu, log));
    loaded = load_model(*session, common);
  }
  session->model = TRY(std::move(loaded));
  if (options.makes_engine) session->engine = TRY(Engine::create(*session->model, engine_options(*session, common)));
  session->load_seconds = now_seconds() - start;
  return session;
}

Result<ProcessedImage> process_picture(const Session& session, Bytes bytes) {
  const ModelConfig& config = session.model->config();
  if (!config.vision) {
    return Error(ErrorCode::unsupported,
                 session.path + " has no vision tower and cannot read pictures");
  }
  const VisionConfig& vision = *config.vision;
  return load_image(bytes, vision.image_size, vision.patch_size * vision.spatial_merge_size,
                    session.processing, {});
}

Result<std::string> read_picture(const std::string& path) {
  return read_file(path, ImageLimits().max_bytes).with_context("picture");
}

}  // namespace bise
