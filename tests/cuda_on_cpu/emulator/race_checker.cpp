// Finds hazards, in whatever order the threads ran: two accesses to a byte, at least one of them a write, that no
// barrier, warp synchronisation or fenced atomic orders. Also finds reads of bytes that were never written, and
// accesses outside registered memory. Kernels are compiled with -fsanitize=thread; race_entry.cpp passes their accesses
// on.
//
// For each byte the last write and up to four reads are kept, of more than one warp if possible. It may miss a write by
// a lane that is ordered after all kept reads of its own warp, but not after a fifth.
#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <memory>
#include <set>
#include <unordered_map>
#include <vector>

#include "emulator/emulator.h"
#include "emulator/race_checker.h"

extern "C" const char __executable_start[], _end[];

namespace emulator::race {
namespace {

constexpr int kWarp = 32, kThreads = 1024, kReads = 4;
constexpr size_t kShown = 8;  // hazards that are described

// An access to a byte: by which thread, and when. epoch counts the barriers of the block, clock the warp
// synchronisations of the lane.
struct Access {
  uint32_t launch = 0;
  uint32_t epoch = 0;
  uint64_t block = 0;
  uint32_t clock = 0;
  int32_t thread = -1;
  const void* pc = nullptr;
  bool is_atomic = false;
};

struct Byte {
  Access write;
  Access reads[kReads];
};

// The bytes of a word have one record until an access covers a part of them; then each has its own.
constexpr size_t kWord = 4;
using Parts = std::array<Byte, kWord>;

struct Region {
  uintptr_t start, end;
  const char* name;
  bool is_shared, is_filled;
  std::vector<Byte> words;
  std::vector<std::unique_ptr<Parts>> parts;  // by word; null: the word has one record
};

// An atomic after a fence is a release. It orders what the thread did before the fence, and what its block did before
// the last barrier before the fence, before any thread that later reads the atomic and then has a fence of its own.
struct Release {
  uint32_t epoch;
  int32_t thread;
};
struct Acquired {
  Release release;
  int32_t by;
  uint32_t at_epoch;
};

std::map<uintptr_t, Region> regions;  // by start
uint32_t launch_number;
uint64_t block_number;
uint32_t epoch;
int32_t thread = -1;  // the running CUDA thread; -1: the host
uintptr_t stack_start, stack_end, closure_start, closure_end;
uint32_t clocks[kThreads];
uint32_t seen[kThreads][kWarp];   // by thread: the clocks of the lanes of its warp that it is ordered after
bool fenced[kThreads];            // the thread has written nothing since its last fence
uint32_t fence_epochs[kThreads];  // of its last fence
std::unordered_map<uintptr_t, std::map<uint64_t, Release>> released;  // by the atomic's address, by block
std::map<uint64_t, Release> read_by[kThreads];                        // by thread and block: not yet fenced
std::map<uint64_t, Acquired> acquired;                                // by block, of the running block
size_t hazards;
std::set<std::pair<const void*, const void*>> shown;
std::string report;

// Whether a release of the other block, acquired by this thread, orders the access.
bool is_acquired(const Access& before) {
  const auto found = acquired.find(before.block);
  if (found == acquired.end()) return false;
  const Acquired& acquire = found->second;
  const bool has_acquired = acquire.by == thread || acquire.at_epoch < epoch;
  const Release& release = acquire.release;
  return has_acquired &&
         (before.epoch < release.epoch || (before.epoch == release.epoch && before.thread == release.thread));
}

bool is_ordered(const Access& before) {
  if (before.launch != launch_number) return true;
  if (before.block != block_number) return is_acquired(before);
  if (before.thread == thread || before.epoch < epoch) return true;
  if (before.thread / kWarp != thread / kWarp) return false;
  return seen[thread][before.thread % kWarp] >= before.clock;
}

std::string place_of(const void* pc) {
  char text[64];
  std::snprintf(text, sizeof(text), "pc=%#zx",
                reinterpret_cast<uintptr_t>(pc) - 1 - reinterpret_cast<uintptr_t>(__executable_start));
  return text;
}

void add_hazard(const char* what, const Region* region, uintptr_t address, const void* pc, const Access* other) {
  ++hazards;
  if (!shown.insert({pc, other != nullptr ? other->pc : nullptr}).second || shown.size() > kShown) return;
  char text[256];
  if (region != nullptr) {
    std::snprintf(text, sizeof(text), "%s: byte %zu of %s, thread %d of block %llu ", what, address - region->start,
                  region->name, thread, static_cast<unsigned long long>(block_number));
  } else {
    std::snprintf(text, sizeof(text), "%s, thread %d of block %llu ", what, thread,
                  static_cast<unsigned long long>(block_number));
  }
  report += "\n  " + (text + place_of(pc));
  if (other != nullptr) {
    std::snprintf(text, sizeof(text), ", against thread %d of block %llu ", other->thread,
                  static_cast<unsigned long long>(other->block));
    report += text + place_of(other->pc);
  }
}

Region* find_region(uintptr_t address) {
  static uintptr_t last = 0;
  auto found = regions.find(last);
  if (found != regions.end() && address >= found->second.start && address < found->second.end) return &found->second;
  found = regions.upper_bound(address);
  if (found == regions.begin()) return nullptr;
  --found;
  if (address >= found->second.end) return nullptr;
  last = found->first;
  return &found->second;
}

void remember_read(Byte& byte, const Access& mine) {
  for (Access& read : byte.reads) {
    if (read.thread != thread || read.block != block_number || read.launch != launch_number) continue;
    read = mine;
    return;
  }
  int same_warp = -1, warps = 0;
  for (int i = 0; i < kReads; ++i) {
    Access& read = byte.reads[i];
    if (read.thread < 0 || read.launch != launch_number || is_ordered(read)) {
      read = mine;
      return;
    }
    const bool is_same = read.block == block_number && read.thread / kWarp == thread / kWarp;
    if (is_same) same_warp = i;
    warps += is_same ? 0 : 1;
  }
  // All kept reads may run at the same time as this one. Keep reads of other warps, and the latest of this warp.
  if (same_warp >= 0 && warps > 0) {
    byte.reads[same_warp] = mine;
  } else if (same_warp < 0) {
    byte.reads[kReads - 1] = mine;
  }
}

void touch(Byte& byte, const Region& region, uintptr_t address, const Access& mine, bool is_write) {
  if (byte.write.thread >= 0 && !is_ordered(byte.write) && !(mine.is_atomic && byte.write.is_atomic)) {
    add_hazard(is_write ? "write after write" : "read after write", &region, address, mine.pc, &byte.write);
  }
  if (!is_write) {
    const bool is_written = region.is_shared ? byte.write.launch == launch_number && byte.write.block == block_number
                                             : byte.write.launch != 0;
    if (!region.is_filled && !is_written)
      add_hazard("read of a byte that nobody wrote", &region, address, mine.pc, nullptr);
    remember_read(byte, mine);
    return;
  }
  for (const Access& read : byte.reads) {
    if (read.thread >= 0 && !is_ordered(read)) {
      add_hazard("write after read", &region, address, mine.pc, &read);
      break;
    }
  }
  byte.write = mine;
}

void add_region(void* memory, size_t bytes, const char* name, bool is_shared, bool is_filled) {
  const auto start = reinterpret_cast<uintptr_t>(memory);
  Region& region = regions[start];
  const size_t words = (bytes + kWord - 1) / kWord;
  region = Region{start, start + bytes, name, is_shared, is_filled, std::vector<Byte>(words), {}};
  region.parts.resize(words);
}

// The record of a byte of a word that is accessed in parts.
Byte& part_of(Region& region, size_t offset) {
  auto& parts = region.parts[offset / kWord];
  if (parts == nullptr) {
    parts = std::make_unique<Parts>();
    parts->fill(region.words[offset / kWord]);
  }
  return (*parts)[offset % kWord];
}

}  // namespace

void access(const void* memory, size_t bytes, bool is_write, bool is_atomic, const void* pc) {
  if (thread < 0) return;
  const auto address = reinterpret_cast<uintptr_t>(memory);
  if (address >= stack_start && address < stack_end) return;
  if (address >= closure_start && address < closure_end) return;
  Region* region = find_region(address);
  if (region == nullptr) {
    const bool is_image = address >= reinterpret_cast<uintptr_t>(__executable_start) &&
                          address < reinterpret_cast<uintptr_t>(_end);  // constants, the emulator's own variables
    if (!is_image) {
      add_hazard(is_write ? "write outside every array" : "read outside every array", nullptr, address, pc, nullptr);
    }
    return;
  }
  if (address + bytes > region->end) {
    add_hazard("access past the end", region, region->end, pc, nullptr);
    bytes = region->end - address;
  }
  const Access mine{launch_number, epoch, block_number, clocks[thread], thread, pc, is_atomic};
  const size_t end = address - region->start + bytes;
  for (size_t at = address - region->start; at < end;) {
    const bool is_whole = at % kWord == 0 && end - at >= kWord && region->parts[at / kWord] == nullptr;
    touch(is_whole ? region->words[at / kWord] : part_of(*region, at), *region, region->start + at, mine, is_write);
    at += is_whole ? kWord : 1;
  }
  if (is_write && !region->is_shared) fenced[thread] = false;
}

void begin_launch(const void* closure, size_t bytes) {
  ++launch_number;
  released.clear();
  hazards = 0;
  shown.clear();
  report.clear();
  closure_start = reinterpret_cast<uintptr_t>(closure);
  closure_end = closure_start + bytes;
}

std::string end_launch() {
  thread = -1;
  for (auto it = regions.begin(); it != regions.end();) it = it->second.is_shared ? regions.erase(it) : std::next(it);
  return hazards == 0 ? std::string() : "race checker: " + std::to_string(hazards) + " hazards" + report;
}

void begin_block(uint64_t block) {
  block_number = block;
  epoch = 1;
  acquired.clear();
  for (auto& releases : read_by) releases.clear();
  std::fill_n(clocks, kThreads, 1u);
  std::fill_n(fenced, kThreads, true);
  std::fill_n(fence_epochs, kThreads, 0u);
  for (auto& row : seen) std::fill_n(row, kWarp, 0u);
}

void resume_thread(int index, const void* stack, size_t bytes) {
  thread = index;
  stack_start = reinterpret_cast<uintptr_t>(stack);
  stack_end = stack_start + bytes;
}

void suspend_thread() { thread = -1; }

void at_barrier() { ++epoch; }

void at_syncwarp(int warp, unsigned mask) {
  uint32_t joined[kWarp] = {};
  for (int lane = 0; lane < kWarp; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    const int index = warp * kWarp + lane;
    for (int i = 0; i < kWarp; ++i) joined[i] = std::max(joined[i], seen[index][i]);
    joined[lane] = std::max(joined[lane], clocks[index]);
    ++clocks[index];
  }
  for (int lane = 0; lane < kWarp; ++lane) {
    if ((mask >> lane & 1) != 0) std::copy_n(joined, kWarp, seen[warp * kWarp + lane]);
  }
}

void at_fence() {
  fenced[thread] = true;
  fence_epochs[thread] = epoch;
  for (const auto& [block, release] : read_by[thread]) acquired[block] = Acquired{release, thread, epoch};
  read_by[thread].clear();
}

void at_atomic(void* memory, size_t bytes, const void* pc) {
  const bool is_release = fenced[thread];
  access(memory, bytes, true, true, pc);
  auto& releases = released[reinterpret_cast<uintptr_t>(memory)];
  for (const auto& [block, release] : releases) {
    if (block != block_number) read_by[thread][block] = release;
  }
  if (is_release) releases[block_number] = Release{fence_epochs[thread], thread};
}

void shared_memory(void* memory, size_t bytes) { add_region(memory, bytes, "shared memory", true, false); }

void global_memory(void* memory, size_t bytes, const char* name, bool is_filled) {
  add_region(memory, bytes, name, false, is_filled);
}

void forget_global_memory() { regions.clear(); }

}  // namespace emulator::race
