// Runs a grid, block after block. In a block, it runs threads that are ready until all have exited or none is ready.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <vector>

#include "emulator/emulator.h"
#include "emulator/fiber.h"

namespace emulator {

Config config;
Index thread_index, block_index;
Dim block_size, grid_size;

namespace {

constexpr unsigned kMaxThreads = 1024;
constexpr unsigned kWarp = 32;

enum class State { kReady, kAtBarrier, kInCollective, kExited };

struct Thread {
  Fiber fiber;
  Index index{};
  State state = State::kReady;
  Place place{nullptr, 0};
  Collective operation{};
  unsigned mask = 0;
  uint64_t value = 0;
  uint64_t result = 0;
  int source_lane = 0;
};

struct SharedVariable {
  std::unique_ptr<char[]> memory;
  char* start = nullptr;
  size_t bytes = 0;
};

std::vector<Thread> threads(kMaxThreads);
unsigned count;  // threads of a block
unsigned current;
std::vector<unsigned> ready;
unsigned at_barrier, exited;
std::string error;
void (*kernel_body)(const void*);
const void* kernel_closure;
size_t dynamic_bytes;
std::map<const void*, SharedVariable> shared;  // kept from block to block, so that allocations are rare
std::vector<const void*> shared_of_block;      // keys that this block has used
uint64_t random_state;

uint64_t next_random() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

std::string describe(const Thread& thread) {
  static const char* const kStates[] = {"running", "at a barrier", "in a warp operation", "exited"};
  char text[512];
  std::snprintf(text, sizeof(text), "thread (%u,%u,%u) of block (%u,%u,%u) %s", thread.index.x, thread.index.y,
                thread.index.z, block_index.x, block_index.y, block_index.z, kStates[static_cast<int>(thread.state)]);
  std::string description = text;
  if (thread.place.file != nullptr) {
    description += " at " + std::string(thread.place.file) + ":" + std::to_string(thread.place.line);
  }
  return description;
}

void make_ready(unsigned thread) {
  threads[thread].state = State::kReady;
  ready.push_back(thread);
}

void wait() { Fiber::suspend(); }

void fiber_main() {
  kernel_body(kernel_closure);
  threads[current].state = State::kExited;
  Fiber::suspend();
}

unsigned take_ready() {
  size_t at = 0;
  if (config.order == Order::kReverse) at = ready.size() - 1;
  if (config.order == Order::kRandom) at = next_random() % ready.size();
  const unsigned thread = ready[at];
  ready.erase(ready.begin() + static_cast<std::ptrdiff_t>(at));
  return thread;
}

void release_barrier() {
  at_barrier = 0;
  race::at_barrier();
  for (unsigned i = 0; i < count; ++i) {
    if (threads[i].state == State::kAtBarrier) make_ready(i);
  }
}

void report_deadlock() {
  error = "deadlock:";
  const Thread* shown = nullptr;
  for (unsigned i = 0; i < count; ++i) {
    const Thread& thread = threads[i];
    if (shown != nullptr && shown->state == thread.state && shown->place.line == thread.place.line) continue;
    error += " [" + describe(thread) + "]";
    shown = &thread;
  }
}

void run_block() {
  shared_of_block.clear();
  ready.clear();
  at_barrier = exited = 0;
  for (unsigned i = 0; i < count; ++i) {
    threads[i].place = {nullptr, 0};
    threads[i].fiber.prepare(&fiber_main);
    make_ready(i);
  }
  while (exited < count && error.empty()) {
    if (ready.empty()) {
      if (at_barrier > 0 && at_barrier + exited == count) {
        release_barrier();
      } else {
        report_deadlock();
      }
      continue;
    }
    current = take_ready();
    Thread& thread = threads[current];
    thread_index = thread.index;
    race::resume_thread(static_cast<int>(current), thread.fiber.stack(), Fiber::stack_bytes());
    thread.fiber.resume();
    race::suspend_thread();
    if (thread.state == State::kExited) ++exited;
  }
}

// The k-th block to run: forward, in reverse, or by a step that visits every block once.
uint64_t nth_block(uint64_t k, uint64_t blocks, uint64_t step, uint64_t offset) {
  if (config.order == Order::kForward) return k;
  if (config.order == Order::kReverse) return blocks - 1 - k;
  return static_cast<uint64_t>((static_cast<unsigned __int128>(k) * step + offset) % blocks);
}

void check_launch(const Dim& grid, const Dim& block) {
  const uint64_t per_block = uint64_t(block.x) * block.y * block.z;
  const bool fits = per_block >= 1 && per_block <= kMaxThreads && block.z <= 64 && grid.x >= 1 && grid.y >= 1 &&
                    grid.z >= 1 && grid.x <= 0x7fffffffu && grid.y <= 65535 && grid.z <= 65535;
  if (!fits) throw Violation("invalid launch configuration");
}

}  // namespace

void run_grid(Dim grid, Dim block, size_t shared_bytes, void (*body)(const void*), const void* closure,
              size_t closure_bytes) {
  check_launch(grid, block);
  count = block.x * block.y * block.z;
  block_size = block;
  grid_size = grid;
  kernel_body = body;
  kernel_closure = closure;
  dynamic_bytes = shared_bytes;
  error.clear();
  random_state = config.seed * 0x9e3779b97f4a7c15ull | 1;
  for (unsigned i = 0; i < count; ++i) {
    threads[i].index = {i % block.x, i / block.x % block.y, i / block.x / block.y};
  }
  const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
  uint64_t step = next_random() % blocks | 1;
  while (std::gcd(step, blocks) != 1) step += 2;
  const uint64_t offset = next_random() % blocks;
  race::begin_launch(closure, closure_bytes);
  for (uint64_t k = 0; k < blocks && error.empty(); ++k) {
    const uint64_t at = nth_block(k, blocks, step, offset);
    block_index = {static_cast<unsigned>(at % grid.x), static_cast<unsigned>(at / grid.x % grid.y),
                   static_cast<unsigned>(at / grid.x / grid.y)};
    race::begin_block(at);
    run_block();
  }
  const std::string races = race::end_launch();
  if (!error.empty()) throw Violation(error);
  if (!races.empty()) throw Violation(races);
}

void violation(const std::string& what, Place place) {
  threads[current].place = place;
  error = what + "; " + describe(threads[current]);
  wait();
  __builtin_unreachable();  // nothing runs after an error
}

void block_barrier(Place place) {
  for (unsigned i = 0; i < count && at_barrier > 0; ++i) {
    const Thread& other = threads[i];
    if (other.state != State::kAtBarrier) continue;
    if (other.place.line != place.line || std::strcmp(other.place.file, place.file) != 0) {
      violation("threads of a block meet at different barriers: " + describe(other), place);
    }
    break;
  }
  Thread& thread = threads[current];
  thread.state = State::kAtBarrier;
  thread.place = place;
  ++at_barrier;
  wait();
}

int lane() { return static_cast<int>(current % kWarp); }

namespace {

// Computes the results of a collective when all its lanes have arrived.
void complete(unsigned base, unsigned live, unsigned mask, Collective operation) {
  uint64_t ballot = 0;
  for (unsigned i = 0; i < live; ++i) {
    if ((mask >> i & 1) != 0 && threads[base + i].value != 0) ballot |= uint64_t(1) << i;
  }
  for (unsigned i = 0; i < live; ++i) {
    if ((mask >> i & 1) == 0) continue;
    Thread& thread = threads[base + i];
    switch (operation) {
      case Collective::kShuffle: thread.result = threads[base + static_cast<unsigned>(thread.source_lane)].value; break;
      case Collective::kBallot: thread.result = ballot; break;
      case Collective::kAny: thread.result = ballot != 0 ? 1 : 0; break;
      case Collective::kAll: thread.result = ballot == mask ? 1 : 0; break;
      case Collective::kSyncWarp: break;
    }
    make_ready(base + i);
  }
  if (operation == Collective::kSyncWarp) race::at_syncwarp(static_cast<int>(base / kWarp), mask);
}

}  // namespace

uint64_t collective(Collective operation, unsigned mask, uint64_t value, int source_lane, Place place) {
  Thread& thread = threads[current];
  const unsigned base = current / kWarp * kWarp;
  const unsigned live = std::min(kWarp, count - base);
  if (live < kWarp && mask == ~0u) mask = (1u << live) - 1;  // a partial last warp accepts the full mask
  if ((mask >> lane() & 1) == 0) violation("the calling lane is not in its own mask", place);
  if (operation == Collective::kShuffle && (mask >> source_lane & 1) == 0) {
    violation("a shuffle reads a lane outside its mask", place);
  }
  thread.state = State::kInCollective;
  thread.operation = operation;
  thread.mask = mask;
  thread.value = value;
  thread.source_lane = source_lane;
  thread.place = place;
  bool all_arrived = true;
  for (unsigned i = 0; i < kWarp; ++i) {
    if ((mask >> i & 1) == 0) continue;
    if (i >= live || threads[base + i].state == State::kExited) violation("the mask names a lane that left", place);
    const Thread& other = threads[base + i];
    if (other.state != State::kInCollective) {
      all_arrived = false;
    } else if (other.operation != operation || other.mask != mask || other.place.line != place.line) {
      violation("lanes of one mask are at different warp operations: " + describe(other), place);
    }
  }
  if (all_arrived) complete(base, live, mask, operation);
  wait();
  return thread.result;
}

void* shared_variable(const void* key, size_t bytes, size_t alignment) {
  SharedVariable& variable = shared[key];
  if (std::find(shared_of_block.begin(), shared_of_block.end(), key) != shared_of_block.end()) return variable.start;
  if (variable.memory == nullptr || variable.bytes != bytes) {
    // The variable ends where the allocation ends, so that AddressSanitizer reports an access past it.
    const size_t room = (bytes + alignment - 1) / alignment * alignment;
    variable.memory.reset(new char[room + alignment]);
    const auto address = reinterpret_cast<uintptr_t>(variable.memory.get());
    variable.start = variable.memory.get() + (alignment - address % alignment) % alignment;
    variable.bytes = bytes;
#if defined(__SANITIZE_ADDRESS__)
    char* end = variable.memory.get() + room + alignment;
    __asan_poison_memory_region(variable.start + bytes, static_cast<size_t>(end - variable.start) - bytes);
#endif
  }
  std::memset(variable.start, 0xff, bytes);  // NaN or -1: not what an earlier block wrote
  race::shared_memory(variable.start, bytes);
  shared_of_block.push_back(key);
  return variable.start;
}

void* dynamic_shared() {
  static const char key = 0;
  return shared_variable(&key, dynamic_bytes, 16);
}

void before_atomic(void* memory, size_t bytes, const void* pc) {
  race::at_atomic(memory, bytes, pc);
  if (config.order == Order::kRandom && next_random() % 4 == 0) {
    make_ready(current);
    wait();
  }
}

void fence() { race::at_fence(); }

uint64_t load_unseen(const void* from, size_t bytes) {
  uint64_t value = 0;
  std::memcpy(&value, from, bytes);
  return value;
}

void store_unseen(void* to, uint64_t value, size_t bytes) { std::memcpy(to, &value, bytes); }

void register_memory(void* memory, size_t bytes, const char* name, bool is_filled) {
  race::global_memory(memory, bytes, name, is_filled);
}

void unregister_all() { race::forget_global_memory(); }

}  // namespace emulator
