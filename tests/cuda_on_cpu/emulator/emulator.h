// What the emulated CUDA headers call: one fiber a CUDA thread, one block at a time, one thread of the host.
// The scheduler decides who runs; the race checker, where it is linked, watches memory.
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

// In which order ready threads, and blocks, run.
enum class Order { kForward, kReverse, kRandom };

struct Config {
  Order order = Order::kForward;
  uint64_t seed = 1;
};
extern Config config;

// Where the running CUDA thread is.
extern Index thread_index, block_index;
extern Dim block_size, grid_size;

// A kernel did what no kernel may; the message names the thread, the block and the line.
struct Violation : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A place in a kernel's source.
struct Place {
  const char* file;
  int line;
};

// Runs body(closure) for every thread of the grid; throws Violation.
void run_grid(Dim grid, Dim block, size_t shared_bytes, void (*body)(const void*), const void* closure,
              size_t closure_bytes);

// __syncthreads
void block_barrier(Place place);

// Operations that the lanes of a mask perform together.
enum class Collective { kSyncWarp, kShuffle, kBallot, kAny, kAll };
uint64_t collective(Collective operation, unsigned mask, uint64_t value, int source_lane, Place place);
int lane();

// The block's shared variable of this key: the same memory for all its threads, filled with garbage at its start.
void* shared_variable(const void* key, size_t bytes, size_t alignment);
void* dynamic_shared();

// Before an atomic operation: a point where another thread may run. pc: its place in the kernel.
void before_atomic(void* memory, size_t bytes, const void* pc);
void fence();
[[noreturn]] void violation(const std::string& what, Place place);

// Memory read and written by the emulator itself, unseen by the race checker.
uint64_t load_unseen(const void* from, size_t bytes);
void store_unseen(void* to, uint64_t value, size_t bytes);

// Memory that kernels may touch. is_filled: false where a kernel must write a byte before it is read.
void register_memory(void* memory, size_t bytes, const char* name, bool is_filled);
void unregister_all();

// The race checker's side; all do nothing where it is not linked.
namespace race {
void begin_launch(const void* closure, size_t bytes);
std::string end_launch();  // what was found, or empty
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
