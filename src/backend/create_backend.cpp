#include "backend/cpu/cpu_backend.h"
#include "backend/create_cuda_backend.h"

namespace bise {

Result<std::unique_ptr<Backend>> create_backend(const std::string& name, const BackendOptions& options,
                                                const Log& log) {
  if (name == "auto" && is_built_with_cuda()) {
    auto gpu = create_cuda_backend(options);
    if (gpu) return gpu;
    log.info("no GPU is used: " + gpu.error().message());
  }
  if (name == "auto" || name == "cpu") return create_cpu_backend(options);
  if (name == "cuda") return create_cuda_backend(options);
  return Error(ErrorCode::invalid_argument,
               "--backend: found \"" + name + "\", expected auto, cpu or cuda");
}

}  // namespace bise
