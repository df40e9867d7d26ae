#include "support/emulated_gpu.h"

#include <algorithm>
#include <bit>
#include <boost/context/fiber.hpp>
#include <cstring>
#include <deque>
#include <vector>

#include "base/float_types.h"

namespace bise::gpu {
namespace {

namespace context = boost::context;

constexpr int kWarpLanes = 32;
constexpr size_t kStackBytes = 64 << 10;
constexpr int kMostSharedBytes = 99 << 10;  // what the smallest of the GPUs gives a block

// Keeps the stacks of threads that have ended for those that come.
class Stacks {
 public:
  context::stack_context allocate() {
    if (free_.empty()) {
      memory_.push_back(std::make_unique<std::byte[]>(kStackBytes));
      free_.push_back(memory_.back().get());
    }
    context::stack_context stack;
    stack.size = kStackBytes;
    stack.sp = free_.back() + kStackBytes;
    free_.pop_back();
    return stack;
  }
  void deallocate(context::stack_context& stack) { free_.push_back(static_cast<std::byte*>(stack.sp) - kStackBytes); }

 private:
  std::vector<std::unique_ptr<std::byte[]>> memory_;
  std::vector<std::byte*> free_;
};
struct StackSource {
  Stacks* stacks;
  context::stack_context allocate() { return stacks->allocate(); }
  void deallocate(context::stack_context& stack) { stacks->deallocate(stack); }
};

// Threads that wait for each other: a lane's words are its own of this round until the round after the next.
struct Barrier {
  int arrived = 0;
  uint32_t round = 0;
};
struct Warp {
  Barrier barrier;
  emulated::LaneWords words[2][kWarpLanes];
};

struct Copy {
  uint8_t* to;
  const void* from;
  size_t bytes;
  bool is_there;

  void land() const {
    if (is_there) std::memcpy(to, from, bytes);
    else std::memset(to, 0, bytes);
  }
};
// A thread's copies that are on their way, by groups; the last one is open.
using CopyGroups = std::deque<std::vector<Copy>>;

struct Block {
  std::vector<CopyGroups> copies;
  std::vector<bool> has_waited;  // for the kernels before
  std::vector<context::fiber> fibers;
  std::vector<Warp> warps;
  Barrier barrier;
  emulated::Place place;
  int alive = 0;
  uint64_t progress = 0;  // arrivals: a round of all threads without one is a deadlock
  context::fiber scheduler;
};

Block* current = nullptr;
Stacks stacks;
std::vector<uint8_t> shared;
uint32_t launches = 0;

void yield() {
  const emulated::Place here = current->place;
  current->scheduler = std::move(current->scheduler).resume();
  current->place = here;
}

// Runs body() in the last of `count` threads that arrive.
template <class Body>
void meet(Barrier& barrier, int count, Body body) {
  ++current->progress;
  if (++barrier.arrived == count) {
    body();
    barrier.arrived = 0;
    ++barrier.round;
    return;
  }
  for (const uint32_t round = barrier.round; barrier.round == round;) yield();
}

void run_block(int threads, const std::function<void()>& kernel) {
  Block& block = *current;
  block.fibers.clear();
  block.warps.assign(static_cast<size_t>((threads + kWarpLanes - 1) / kWarpLanes), Warp());
  block.alive = threads;
  block.copies.assign(static_cast<size_t>(threads), CopyGroups(1));
  block.has_waited.assign(static_cast<size_t>(threads), false);
  for (int t = 0; t < threads; ++t) {
    block.fibers.push_back(
        context::fiber(std::allocator_arg, StackSource{&stacks}, [&block, &kernel, t](context::fiber&& from) {
          block.scheduler = std::move(from);
          block.place.thread = t;
          kernel();
          CHECK(block.has_waited[static_cast<size_t>(t)]);  // or the next kernel could begin before the one before this
          --block.alive;
          ++block.progress;
          return std::move(block.scheduler);
        }));
  }
  // Up and down in turn: what only works in one order fails in the other.
  const bool down = launches % 2 == 1;
  while (block.alive > 0) {
    const uint64_t before = block.progress;
    for (int i = 0; i < threads; ++i) {
      context::fiber& fiber = block.fibers[static_cast<size_t>(down ? threads - 1 - i : i)];
      if (fiber) fiber = std::move(fiber).resume();
    }
    CHECK(block.progress != before);  // threads wait for some that are gone
  }
}

float low_of(uint32_t pair) { return bf16_to_f32(static_cast<uint16_t>(pair)); }
float high_of(uint32_t pair) { return bf16_to_f32(static_cast<uint16_t>(pair >> 16)); }

// PTX, "Matrix fragments for mma.m16n8k16 with floating point type".
void multiply_fragments(emulated::LaneWords (&lanes)[kWarpLanes]) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const int row = g + 8 * (i % 2), column = 2 * t + 8 * (i / 2);
      a[row][column] = low_of(lanes[lane].in[i]);
      a[row][column + 1] = high_of(lanes[lane].in[i]);
    }
    for (int i = 0; i < 2; ++i) {
      b[2 * t + 8 * i][g] = low_of(lanes[lane].in[4 + i]);
      b[2 * t + 8 * i + 1][g] = high_of(lanes[lane].in[4 + i]);
    }
  }
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const int row = g + 8 * (i / 2), column = 2 * t + i % 2;
      float sum = std::bit_cast<float>(lanes[lane].in[6 + i]);
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
      lanes[lane].out[i] = std::bit_cast<uint32_t>(sum);
    }
  }
}

void transpose(emulated::LaneWords (&lanes)[kWarpLanes]) {
  uint16_t m[8][8];
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    m[lane / 4][2 * (lane % 4)] = static_cast<uint16_t>(lanes[lane].in[0]);
    m[lane / 4][2 * (lane % 4) + 1] = static_cast<uint16_t>(lanes[lane].in[0] >> 16);
  }
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const int row = lane / 4, column = 2 * (lane % 4);
    lanes[lane].out[0] = m[column][row] | static_cast<uint32_t>(m[column + 1][row]) << 16;
  }
}

template <int mask>
void exchange(emulated::LaneWords (&lanes)[kWarpLanes]) {
  for (int lane = 0; lane < kWarpLanes; ++lane) lanes[lane].out[0] = lanes[lane ^ mask].in[0];
}

// a b + c in BF16, rounded once: the product is exact in double, and so is the sum but for what two roundings to
// odd cannot change.
uint16_t fma_bf16(uint16_t a, uint16_t b, uint16_t c) {
  const double exact = double{bf16_to_f32(a)} * double{bf16_to_f32(b)} + double{bf16_to_f32(c)};
  return f32_to_bf16(static_cast<float>(exact));
}

}  // namespace

namespace emulated {

const Place& place() { return current->place; }

void run_in_warp(WarpInstruction instruction, LaneWords& words) {
  const size_t lane = static_cast<size_t>(current->place.thread % kWarpLanes);
  Warp& warp = current->warps[static_cast<size_t>(current->place.thread / kWarpLanes)];
  LaneWords(&round)[kWarpLanes] = warp.words[warp.barrier.round % 2];
  round[lane] = words;
  meet(warp.barrier, kWarpLanes, [&] { instruction(round); });
  words = round[lane];
}

void run_blocks(int64_t blocks_x, int64_t blocks_y, int threads, int shared_bytes,
                const std::function<void()>& kernel) {
  CHECK(blocks_x > 0 && blocks_x < (int64_t{1} << 31) && blocks_y > 0 && blocks_y < 65536);  // as the driver has it
  CHECK(threads > 0 && threads <= 1024 && threads % kWarpLanes == 0);
  CHECK(shared_bytes <= kMostSharedBytes);
  const DeviceMemoryOpen open;
  Block block;
  current = &block;
  ++launches;
  for (int64_t y = 0; y < blocks_y; ++y) {
    for (int64_t x = 0; x < blocks_x; ++x) {
      shared.assign(static_cast<size_t>(shared_bytes), 0xFF);  // NaN; and no block finds what another left
      block.place = {0, threads, static_cast<int>(blocks_x), static_cast<int>(x), static_cast<int>(y)};
      run_block(threads, kernel);
    }
  }
  current = nullptr;
}

}  // namespace emulated

uint8_t* shared_bytes() { return shared.data(); }
void sync_block() {
  meet(current->barrier, current->place.threads, [] {});
}
void wait_for_previous() { current->has_waited[static_cast<size_t>(current->place.thread)] = true; }
// In turn at once and as late as may be: a stage that is filled while somebody reads it fails in the one, one that is
// read before it is there in the other.
void copy_async(uint8_t* to, const void* from, int bytes, bool is_there) {
  CHECK(reinterpret_cast<uintptr_t>(to) % static_cast<size_t>(bytes) == 0);
  CHECK(reinterpret_cast<uintptr_t>(from) % static_cast<size_t>(bytes) == 0);
  CHECK(to >= shared.data() && to + bytes <= shared.data() + shared.size());
  const auto thread = static_cast<size_t>(current->place.thread);
  CHECK(current->has_waited[thread] || emulated::is_weight(from));
  const Copy copy{to, from, static_cast<size_t>(bytes), is_there};
  if (launches % 4 < 2) copy.land();
  else current->copies[thread].back().push_back(copy);
}
void commit_copies() { current->copies[static_cast<size_t>(current->place.thread)].emplace_back(); }
void wait_for_copies(int n) {
  CHECK(n >= 0 && n <= 2);
  CopyGroups& groups = current->copies[static_cast<size_t>(current->place.thread)];
  for (; groups.size() > static_cast<size_t>(n) + 1; groups.pop_front()) {
    for (const Copy& copy : groups.front()) copy.land();
  }
}
float shuffle_xor(float value, int mask) {
  emulated::LaneWords words{};
  words.in[0] = std::bit_cast<uint32_t>(value);
  switch (mask) {
    case 1: emulated::run_in_warp(exchange<1>, words); break;
    case 2: emulated::run_in_warp(exchange<2>, words); break;
    case 4: emulated::run_in_warp(exchange<4>, words); break;
    case 8: emulated::run_in_warp(exchange<8>, words); break;
    case 16: emulated::run_in_warp(exchange<16>, words); break;
    default: CHECK(false);
  }
  return std::bit_cast<float>(words.out[0]);
}
uint32_t byte_permute(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = uint64_t{b} << 32 | a;
  uint32_t out = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t choice = selector >> (4 * i) & 0xF;
    CHECK(choice < 8);  // the mode that spreads signs is not used
    out |= static_cast<uint32_t>(bytes >> (8 * choice) & 0xFF) << (8 * i);
  }
  return out;
}
uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
  const auto low = fma_bf16(static_cast<uint16_t>(a), static_cast<uint16_t>(b), static_cast<uint16_t>(c));
  const auto high =
      fma_bf16(static_cast<uint16_t>(a >> 16), static_cast<uint16_t>(b >> 16), static_cast<uint16_t>(c >> 16));
  return low | uint32_t{high} << 16;
}
uint32_t to_bf16x2(float low, float high) { return f32_to_bf16(low) | uint32_t{f32_to_bf16(high)} << 16; }
void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulated::LaneWords words{{a[0], a[1], a[2], a[3], b0, b1}, {}};
  for (int i = 0; i < 4; ++i) words.in[6 + i] = std::bit_cast<uint32_t>(c[i]);
  emulated::run_in_warp(multiply_fragments, words);
  for (int i = 0; i < 4; ++i) c[i] = std::bit_cast<float>(words.out[i]);
}
uint32_t transpose_8x8(uint32_t pair) {
  emulated::LaneWords words{};
  words.in[0] = pair;
  emulated::run_in_warp(transpose, words);
  return words.out[0];
}
float f16_bits_to_float(uint16_t bits) { return f16_to_f32(bits); }
float bits_to_float(uint32_t bits) { return std::bit_cast<float>(bits); }
uint32_t float_to_bits(float value) { return std::bit_cast<uint32_t>(value); }

}  // namespace bise::gpu
