#include "app/out_of_core.h"

#include <algorithm>

#include "app/machine.h"
#include "app/text_format.h"
#include "base/read_ahead.h"

namespace bise {

MemoryRequest memory_request(const CommonOptions& options, KvDType kv_dtype, const Backend& backend) {
  constexpr uint64_t kKeptFree = uint64_t{256} << 20;
  MemoryRequest request;
  if (const std::optional<DeviceMemory> device = backend.device_memory()) {
    const uint64_t most = device->free_bytes - device->free_bytes / 20;
    request.device_ceiling = options.gpu_memory > 0 ? std::min(options.gpu_memory, most) : most;
  }
  request.held_bytes = held_memory();
  request.is_firm = options.memory > 0;
  request.ceiling = options.memory;
  if (!request.is_firm) {
    const uint64_t available = available_memory();
    const uint64_t kept = std::max(available / 20, kKeptFree);
    // Where the system does not tell, there is no ceiling.
    if (available > 0) request.ceiling = request.held_bytes + (available > kept ? available - kept : 0);
  }
  request.context = options.context;
  request.kv_dtype = kv_dtype;
  request.logits_rows = 64;
  return request;
}

double StreamForecast::step_seconds() const {
  double rate = disk_bytes_per_s;
  if (product_bytes_per_s > 0 && (rate == 0 || product_bytes_per_s < rate)) rate = product_bytes_per_s;
  return rate > 0 ? static_cast<double>(step_bytes) / rate : 0.0;
}

double measure_stream_disk(const StreamForecast& forecast, double seconds) {
  auto rate = measure_read_rate(forecast.path, forecast.offset, forecast.step_bytes, seconds, forecast.ring_bytes);
  return rate && rate->seconds > 0 ? static_cast<double>(rate->bytes) / rate->seconds : 0.0;
}

StreamForecast forecast_stream(const MemoryPlan& plan, const std::string& path, uint64_t offset) {
  constexpr double kSeconds = 0.3;
  constexpr uint64_t kMaxRing = uint64_t{96} << 20;
  StreamForecast forecast;
  forecast.step_bytes = plan.streamed_bytes;
  forecast.path = path;
  forecast.offset = offset;
  forecast.ring_bytes = std::min(plan.ring_bytes, kMaxRing);
  forecast.disk_bytes_per_s = measure_stream_disk(forecast, kSeconds);
  return forecast;
}

std::string device_line(const DevicePlan& plan) {
  const std::string all = std::to_string(plan.num_layers);
  std::string line = "GPU: ";
  line += plan.host_layers == 0 ? "all " + all : std::to_string(plan.num_layers - plan.host_layers) + " of " + all;
  line += " layers and the head, " + memory_text(plan.weight_bytes) + "; their KV cache, " +
          memory_text(plan.kv_bytes) + " for " + std::to_string(plan.context) + " tokens (--context); a step's work, " +
          memory_text(plan.work_bytes);
  if (plan.host_layers == 0) return line;
  return line + "; the embedding and the first " + std::to_string(plan.host_layers) +
         " layers stay with the CPU, which makes it slower: " + memory_text(plan.ceiling) +
         " may be taken (--gpu-memory)";
}

std::string plan_line(const MemoryPlan& plan) {
  return "memory: " + memory_text(plan.ceiling) + " at most; " + memory_text(plan.resident_bytes) +
         " of the weights stay, " + memory_text(plan.streamed_bytes) +
         " are read from the disk for every token (and for every 512 tokens of a prompt); context " +
         std::to_string(plan.context) + " tokens, " + memory_text(plan.kv_bytes) + " (--context)";
}

std::string forecast_line(const StreamForecast& forecast) {
  const double seconds = forecast.step_seconds();
  if (seconds == 0) return "memory: the disk could not be measured, so no time is foretold";
  std::string line = "memory: expect " + format_fixed(seconds, seconds < 1 ? 3 : 1) + " s per token; the disk gives " +
                     format_fixed(forecast.disk_bytes_per_s / 1e9, 2) + " GB/s";
  if (forecast.product_bytes_per_s > 0) {
    line += ", products take " + format_fixed(forecast.product_bytes_per_s / 1e9, 2) + " GB/s";
  }
  return line;
}

}  // namespace bise
