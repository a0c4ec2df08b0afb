// What the emulated CUDA headers call. Each CUDA thread is a fiber; one block runs at a time, in one host thread. The
// scheduler chooses the fiber that runs; the race checker, in programs that link it, checks every access to memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace emulator {

struct Index {
  unsigned x, y, z;
};

struct Dim : Index {
  constexpr Dim(unsigned x = 1, unsigned y = 1, unsigned z = 1) : Index{x, y, z} {}
};

// The order in which ready threads, and blocks, run.
enum class Order { kForward, kReverse, kRandom };

struct Config {
  Order order = Order::kForward;
  uint64_t seed = 1;
};
extern Config config;

// threadIdx, blockIdx, blockDim and gridDim of the running CUDA thread.
extern Index thread_index, block_index;
extern Dim block_size, grid_size;

// A kernel broke a rule. The message names the thread, the block and the line.
struct Violation : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A line of a kernel's source.
struct Place {
  const char* file;
  int line;
};

// Runs body(closure) for every thread of the grid; throws Violation.
void run_grid(Dim grid, Dim block, size_t shared_bytes, void (*body)(const void*), const void* closure,
              size_t closure_bytes);

// __syncthreads
void block_barrier(Place place);

// Operations that all lanes of a mask perform together.
enum class Collective { kSyncWarp, kShuffle, kBallot, kAny, kAll };
uint64_t collective(Collective operation, unsigned mask, uint64_t value, int source_lane, Place place);
int lane();

// The shared variable with this key: the same memory for all threads of a block, filled with garbage when the block
// starts.
void* shared_variable(const void* key, size_t bytes, size_t alignment);
void* dynamic_shared();

// Called before an atomic operation; another thread may run first. pc: return address of the operation.
void before_atomic(void* memory, size_t bytes, const void* pc);
void fence();
[[noreturn]] void violation(const std::string& what, Place place);

// Reads and writes of the emulator itself, which the race checker does not check.
uint64_t load_unseen(const void* from, size_t bytes);
void store_unseen(void* to, uint64_t value, size_t bytes);

// Allows kernels to access this memory. is_filled: false if a kernel must write each byte before one reads it.
void register_memory(void* memory, size_t bytes, const char* name, bool is_filled);
void unregister_all();

// The race checker. These functions do nothing in programs that do not link it.
namespace race {
void begin_launch(const void* closure, size_t bytes);
std::string end_launch();  // the hazards of the launch, or an empty string
void begin_block(uint64_t block);
void resume_thread(int thread, const void* stack, size_t bytes);
void suspend_thread();
void at_barrier();
void at_syncwarp(int warp, unsigned mask);
void at_fence();
void at_atomic(void* memory, size_t bytes, const void* pc);
void shared_memory(void* memory, size_t bytes);
void global_memory(void* memory, size_t bytes, const char* name, bool is_filled);
void forget_global_memory();
}  // namespace race

}  // namespace emulator
