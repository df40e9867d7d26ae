#include "backend/cuda/gpu_probe.h"

#include <algorithm>
#include <chrono>

#include "backend/cuda/cuda_kernels.h"

namespace bise::gpu {
namespace {

class GpuReadProbe : public ReadProbe {
 public:
  GpuReadProbe(Stream stream, int32_t num_multiprocessors) : queue_(stream), num_multiprocessors_(num_multiprocessors) {
    constexpr uint64_t kMost = uint64_t{1} << 30, kAlignment = 1 << 20;
    const uint64_t wanted = std::min(kMost, device_memory().free_bytes / 64) / kAlignment * kAlignment;
    auto data = allocate_device(wanted, "the bandwidth probe"),
         sink = allocate_device(sizeof(uint32_t), "the bandwidth probe");
    if (!data || !sink) return;
    data_ = std::move(*data);
    sink_ = std::move(*sink);
    read();  // the first of a kernel takes longer
    best_ = 0.0;
  }
  double read() override {
    constexpr int32_t kPasses = 8;  // so that starting and waiting are under a hundredth
    if (data_.data() == nullptr) return 0.0;
    const auto start = std::chrono::steady_clock::now();
    launch_read(queue_, data_.data(), data_.bytes(), kPasses, num_multiprocessors_,
                static_cast<uint32_t*>(sink_.data()));
    if (!queue_.flush() || !synchronize(queue_.stream())) return 0.0;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const double rate = kPasses * static_cast<double>(data_.bytes()) / seconds / 1e9;
    best_ = std::max(best_, rate);
    return rate;
  }
  double best() const override { return best_; }
  uint64_t bytes() const override { return data_.bytes(); }

 private:
  Queue queue_;
  int32_t num_multiprocessors_;
  Buffer data_, sink_;
  double best_ = 0.0;
};

}  // namespace

std::unique_ptr<ReadProbe> probe_gpu_reads(Stream stream, int32_t num_multiprocessors) {
  return std::make_unique<GpuReadProbe>(stream, num_multiprocessors);
}

}  // namespace bise::gpu
