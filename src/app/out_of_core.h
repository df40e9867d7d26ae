// A model larger than memory: the ceiling, what is said before it starts, and what came of it.
#pragma once

#include <string>

#include "app/options.h"
#include "base/bytes.h"
#include "base/log.h"
#include "model/memory_plan.h"

namespace bise {

// --memory and --gpu-memory, else what the machine and its GPU have left: a share is kept for others.
MemoryRequest memory_request(const CommonOptions& options, KvDType kv_dtype, const Backend& backend);

// What a step is expected to take while weights stream from the disk. All zero: nothing streams.
struct StreamForecast {
  uint64_t step_bytes = 0;     // read from the disk by each step
  double disk_bytes_per_s = 0;  // measured on the model's own file; 0: could not be
  double product_bytes_per_s = 0;  // that products take while they need not wait for the disk
  std::string path;             // where the first streamed weight lies
  uint64_t offset = 0;
  uint64_t ring_bytes = 0;  // of the read-ahead: the ceiling has room for no other
  // The slower of disk and products; 0: unknown.
  double step_seconds() const;
};
// Measures the disk where the streamed weights lie, for about so many seconds; 0: it cannot be.
double measure_stream_disk(const StreamForecast& forecast, double seconds);
StreamForecast forecast_stream(const MemoryPlan& plan, const std::string& path, uint64_t offset);
// "GPU: …": which layers it has.
std::string device_line(const DevicePlan& plan);
// "memory: …", one line each: what stays and what streams; what to expect.
std::string plan_line(const MemoryPlan& plan);
std::string forecast_line(const StreamForecast& forecast);

}  // namespace bise
