// Small kernels, each in a right version and one with a bug that the emulator must report.
// Usage: planted NAME right|wrong ORDER SEED
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>

#include "common/block.cuh"
#include "common/vector.cuh"

using namespace retina_ops;

namespace {

constexpr int kThreads = 128;

template <class T>
T* array_of(size_t count, const char* name, bool is_filled = true) {
  auto* memory = new (std::align_val_t{64}) T[count]();
  emulator::register_memory(memory, count * sizeof(T), name, is_filled);
  return memory;
}

void run(void (*kernel)(float*, bool), unsigned blocks, size_t count, bool wrong, unsigned threads = kThreads) {
  float* data = array_of<float>(count, "data");
  launch(kernel, dim3(blocks), dim3(threads), 0, nullptr, data, wrong);
}

void global_bounds(float* data, bool wrong) { data[threadIdx.x + (wrong ? 1 : 0)] += 1.0f; }

void shared_bounds(float* data, bool wrong) {
  RETINA_OPS_SHARED(float[kThreads], tile);
  tile[threadIdx.x] = data[threadIdx.x];
  __syncthreads();
  data[threadIdx.x] = tile[(threadIdx.x + 1) % (wrong ? kThreads + 1 : kThreads)];
}

void missing_barrier(float* data, bool wrong) {
  RETINA_OPS_SHARED(float[kThreads], tile);
  tile[threadIdx.x] = data[threadIdx.x];
  if (!wrong) __syncthreads();
  data[threadIdx.x] = tile[kThreads - 1 - threadIdx.x];
}

void tile_overwritten(float* data, bool wrong) {
  RETINA_OPS_SHARED(float[kThreads], tile);
  for (int step = 0; step < 2; ++step) {
    tile[threadIdx.x] = data[threadIdx.x];
    __syncthreads();
    data[threadIdx.x] = tile[kThreads - 1 - threadIdx.x];
    if (!wrong) __syncthreads();
  }
}

void lost_update(float* data, bool wrong) {
  auto* counter = reinterpret_cast<unsigned*>(data);
  if (wrong) {
    *counter += 1u;
  } else {
    atomicAdd(counter, 1u);
  }
}

void lost_update_across_blocks(float* data, bool wrong) {
  if (threadIdx.x == 0) lost_update(data, wrong);
}

void adjacent_bytes(float* data, bool wrong) {
  RETINA_OPS_SHARED(unsigned char[kThreads], flags);
  flags[wrong ? threadIdx.x / 2 : threadIdx.x] = static_cast<unsigned char>(threadIdx.x);
  __syncthreads();
  data[threadIdx.x] = flags[threadIdx.x / 2];
}

void reused_reduction(float* data, bool wrong) {
  const float first = block_sum<kThreads>(data[threadIdx.x]);
  if (!wrong) __syncthreads();
  const float second = block_sum<kThreads>(2.0f * data[threadIdx.x]);
  if (threadIdx.x == 0) data[0] = first + second;
}

void divergent_barrier(float* data, bool wrong) {
  if (!wrong || threadIdx.x < 64) {
    __syncthreads();
  } else {
    data[threadIdx.x] = 1.0f;
    __syncthreads();
  }
}

void early_exit(float* data, bool wrong) {
  if (wrong && threadIdx.x == 5) {
    unsigned mask = kFullWarp;  // waits for lanes that are at the barrier
    data[5] = static_cast<float>(__ballot_sync(mask, true));
  }
  __syncthreads();
  data[threadIdx.x] = 2.0f;
}

void missing_syncwarp(float* data, bool wrong) {
  RETINA_OPS_SHARED(float[kThreads], tile);
  tile[threadIdx.x] = data[threadIdx.x];
  if (!wrong) __syncwarp();
  data[threadIdx.x] = tile[threadIdx.x ^ 1u];
}

void uninitialized_shared(float* data, bool wrong) {
  RETINA_OPS_SHARED(float[kThreads], tile);
  if (!wrong || threadIdx.x != 7) tile[threadIdx.x] = data[threadIdx.x];
  __syncthreads();
  data[threadIdx.x] = tile[threadIdx.x];
}

void misaligned(float* data, bool wrong) {
  float values[4];
  load_pack(data + (wrong ? 1 : 0), 4, true, values);
  if (threadIdx.x == 0) data[8] = values[0] + values[3];
}

void lane_that_left(float* data, bool wrong) {
  if (wrong && threadIdx.x == 3) return;
  data[threadIdx.x] = __shfl_xor_sync(kFullWarp, data[threadIdx.x], 1);
}

void lane_outside_mask(float* data, bool wrong) {
  const unsigned mask = wrong ? 0x0000ffffu : kFullWarp;
  data[threadIdx.x] = __shfl_xor_sync(mask, data[threadIdx.x], 1);
}

void deep_stack(float* data, bool wrong) {
  volatile char room[1024];
  room[0] = 1;
  data[0] += static_cast<float>(room[0]);
  if (wrong) deep_stack(data, wrong);
  room[1] = room[0];
}

// The last block to finish adds what the other blocks wrote. Fences stand before and after the counter.
void last_block(float* data, bool has_fence_before, bool has_fence_after) {
  RETINA_OPS_SHARED(bool, is_last);
  auto* done = reinterpret_cast<unsigned*>(data + 64);
  if (threadIdx.x == 0) {
    data[blockIdx.x] = 1.0f;
    if (has_fence_before) __threadfence();
    is_last = atomicAdd(done, 1u) == gridDim.x - 1;
    if (has_fence_after) __threadfence();
  }
  __syncthreads();
  if (!is_last || threadIdx.x != 0) return;
  float sum = 0.0f;
  for (unsigned i = 0; i < gridDim.x; ++i) sum += data[i];
  data[65] = sum;
}
// The fence must stand after the barrier that orders the writes of the other threads.
void fence_before_barrier(float* data, bool wrong) {
  RETINA_OPS_SHARED(bool, is_last);
  auto* done = reinterpret_cast<unsigned*>(data + 64);
  if (threadIdx.x == 7) data[blockIdx.x] = 1.0f;
  if (wrong) __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    if (!wrong) __threadfence();
    is_last = atomicAdd(done, 1u) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (is_last && threadIdx.x == 0) {
    for (unsigned i = 0; i < gridDim.x; ++i) data[65] += data[i];
  }
}
void missing_fence(float* data, bool wrong) { last_block(data, !wrong, true); }
void missing_fence_after(float* data, bool wrong) { last_block(data, true, !wrong); }

void global_garbage(const float* data, float* out, bool wrong) {
  if (wrong || threadIdx.x > 0) out[threadIdx.x] = data[threadIdx.x];
}

void run_global_garbage(bool wrong) {
  float* data = array_of<float>(kThreads, "data", false);
  float* out = array_of<float>(kThreads, "out", false);
  launch(
      +[](float* to, bool) {
        if (threadIdx.x > 0) to[threadIdx.x] = 1.0f;
      },
      dim3(1), dim3(kThreads), 0, nullptr, data, wrong);
  launch(global_garbage, dim3(1), dim3(kThreads), 0, nullptr, data, out, wrong);
}

using Kernel = void (*)(float*, bool);
struct Planted {
  Kernel kernel;
  unsigned blocks;
  size_t count;
  unsigned threads = kThreads;
};

const std::map<std::string, Planted> kPlanted = {
    {"global bounds", {global_bounds, 1, kThreads}},
    {"shared bounds", {shared_bounds, 1, kThreads}},
    {"missing barrier", {missing_barrier, 1, kThreads}},
    {"tile overwritten", {tile_overwritten, 1, kThreads}},
    {"lost update", {lost_update, 1, 1}},
    {"lost update across blocks", {lost_update_across_blocks, 4, 1}},
    {"adjacent bytes", {adjacent_bytes, 1, kThreads}},
    {"reused reduction", {reused_reduction, 1, kThreads}},
    {"divergent barrier", {divergent_barrier, 1, kThreads}},
    {"deadlock", {early_exit, 1, kThreads}},
    {"missing syncwarp", {missing_syncwarp, 1, kThreads}},
    {"uninitialized shared", {uninitialized_shared, 1, kThreads}},
    {"misaligned", {misaligned, 1, 16}},
    {"lane that left", {lane_that_left, 1, kThreads}},
    {"lane outside mask", {lane_outside_mask, 1, kThreads}},
    {"deep stack", {deep_stack, 1, 4, 1}},
    {"missing fence", {missing_fence, 8, 80}},
    {"missing fence after the counter", {missing_fence_after, 8, 80}},
    {"fence before the barrier", {fence_before_barrier, 8, 80}},
};

}  // namespace

int main(int count, char** arguments) {
  if (count != 5) return 2;
  const std::string name = arguments[1], order = arguments[3];
  const bool wrong = std::string(arguments[2]) == "wrong";
  emulator::config.order = order == "reverse"  ? emulator::Order::kReverse
                           : order == "random" ? emulator::Order::kRandom
                                               : emulator::Order::kForward;
  emulator::config.seed = std::strtoull(arguments[4], nullptr, 10);
  try {
    if (name == "global garbage") {
      run_global_garbage(wrong);
    } else if (name == "invalid launch") {
      run(global_bounds, 1, 4096, false, wrong ? 2048 : 1024);
    } else {
      const Planted& planted = kPlanted.at(name);
      run(planted.kernel, planted.blocks, planted.count, wrong, planted.threads);
    }
  } catch (const emulator::Violation& violation) {
    std::fprintf(stderr, "%s\n", violation.what());
    return 3;
  }
  return 0;
}
