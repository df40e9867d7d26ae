#include <cuda_runtime.h>

#include "backend/cuda/device.h"
#include "backend/cuda/queue.h"

namespace bise::gpu {
namespace {

constexpr int kLeastMajor = 8;  // products in BF16

std::string gigabytes(uint64_t bytes) {
  const uint64_t tenths = bytes / 100'000'000;
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " GB";
}
void release_device(void* data, size_t) { cudaFree(data); }
void release_pinned(void* data, size_t) { cudaFreeHost(data); }

}  // namespace

Result<DeviceInfo> open_device() {
  int count = 0;
  const cudaError_t found = cudaGetDeviceCount(&count);
  if (found == cudaErrorInsufficientDriver) {
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (driver == 0)
      return Error(ErrorCode::unsupported,
                   "--backend cuda: this machine has no NVIDIA driver; --backend cpu runs here");
    return Error(ErrorCode::unsupported, "--backend cuda: the NVIDIA driver is for CUDA " +
                                             std::to_string(driver / 1000) + "." + std::to_string(driver % 1000 / 10) +
                                             ", this program needs CUDA " + std::to_string(runtime / 1000) +
                                             ": update the driver, or use --backend cpu");
  }
  if (found != cudaSuccess || count == 0) {
    return Error(ErrorCode::unsupported, std::string("--backend cuda: no NVIDIA GPU can be used (") +
                                             (found == cudaSuccess ? "none is there" : cudaGetErrorString(found)) +
                                             "); --backend cpu runs here");
  }
  cudaDeviceProp properties{};
  if (const cudaError_t failed = cudaGetDeviceProperties(&properties, 0); failed != cudaSuccess) {
    return Error(ErrorCode::device, std::string("the GPU does not answer: ") + cudaGetErrorString(failed));
  }
  if (properties.major < kLeastMajor) {
    return Error(ErrorCode::unsupported, std::string("--backend cuda: ") + properties.name +
                                             " has compute capability " + std::to_string(properties.major) + "." +
                                             std::to_string(properties.minor) +
                                             ", 8.0 or more is needed (Ampere and later); --backend cpu runs here");
  }
  return DeviceInfo{properties.name, properties.major, properties.minor, properties.multiProcessorCount,
                    properties.totalGlobalMem};
}

Result<Stream> create_stream() {
  cudaStream_t stream = nullptr;
  if (const cudaError_t failed = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking); failed != cudaSuccess) {
    return Error(ErrorCode::device, std::string("the GPU gives no stream: ") + cudaGetErrorString(failed));
  }
  int device = 0, major = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  return Stream{stream, major >= 9};
}

DeviceMemory device_memory() {
  size_t free_bytes = 0, total = 0;
  if (cudaMemGetInfo(&free_bytes, &total) != cudaSuccess) return {};
  return {free_bytes, total};
}

Result<Buffer> allocate_device(uint64_t bytes, const char* what) {
  void* data = nullptr;
  cudaError_t failed = cudaMalloc(&data, bytes);
  if (failed == cudaSuccess) failed = cudaMemset(data, 0, bytes);
  if (failed == cudaSuccess) failed = cudaDeviceSynchronize();  // streams of ours do not wait for that one
  if (failed == cudaSuccess) return Buffer(data, bytes, release_device);
  cudaFree(data);
  cudaGetLastError();
  if (failed != cudaErrorMemoryAllocation)
    return Error(ErrorCode::device, std::string(what) + ": " + cudaGetErrorString(failed));
  const DeviceMemory memory = device_memory();
  return Error(ErrorCode::out_of_memory,
               std::string(what) + ": " + gigabytes(bytes) + " are needed on the GPU, " + gigabytes(memory.free_bytes) +
                   " of " + gigabytes(memory.total_bytes) +
                   " are free; a smaller --context, --kv-cache-dtype fp8 or a smaller format of weights takes less");
}

Result<Buffer> allocate_pinned(uint64_t bytes, const char* what) {
  void* data = nullptr;
  if (cudaMallocHost(&data, bytes) == cudaSuccess) return Buffer(data, bytes, release_pinned);
  cudaGetLastError();
  return Error(ErrorCode::out_of_memory,
               std::string(what) + ": the system gives no " + gigabytes(bytes) + " that it would not page out");
}

// A copy that fails is told by synchronize(): CUDA keeps the error.
void copy_to_device(Stream stream, void* to, const void* from, size_t bytes) {
  cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, static_cast<cudaStream_t>(stream.handle));
}
void copy_to_host(Stream stream, void* to, const void* from, size_t bytes) {
  cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, static_cast<cudaStream_t>(stream.handle));
}

Result<Graph> record_graph(Stream stream, std::span<const Command> commands) {
  const auto handle = static_cast<cudaStream_t>(stream.handle);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  cudaError_t failed = cudaStreamBeginCapture(handle, cudaStreamCaptureModeThreadLocal);
  if (failed == cudaSuccess) {
    for (const Command& c : commands) c.start(c, stream);
    failed = cudaStreamEndCapture(handle, &graph);
  }
  if (failed == cudaSuccess) failed = cudaGraphInstantiate(&executable, graph, 0);
  if (graph != nullptr) cudaGraphDestroy(graph);
  if (failed == cudaSuccess) return Graph{executable};
  cudaGetLastError();
  return Error(ErrorCode::device, std::string("the GPU refuses a graph of ") + std::to_string(commands.size()) +
                                      " kernels: " + cudaGetErrorString(failed));
}
void replay(Stream stream, Graph graph) {
  cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph.handle), static_cast<cudaStream_t>(stream.handle));
}
void release_graph(Graph graph) { cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph.handle)); }

Result<void> synchronize(Stream stream) {
  const cudaError_t waited = cudaStreamSynchronize(static_cast<cudaStream_t>(stream.handle));
  const cudaError_t before = cudaGetLastError();  // of a launch
  const cudaError_t failed = before != cudaSuccess ? before : waited;
  if (failed == cudaSuccess) return {};
  return Error(ErrorCode::device, std::string("the GPU failed: ") + cudaGetErrorString(failed));
}

}  // namespace bise::gpu
