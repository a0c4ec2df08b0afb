// For programs without the race checker: functions that do nothing.
#include "emulator/emulator.h"

namespace emulator::race {

void begin_launch(const void*, size_t) {}
std::string end_launch() { return {}; }
void begin_block(uint64_t) {}
void resume_thread(int, const void*, size_t) {}
void suspend_thread() {}
void at_barrier() {}
void at_syncwarp(int, unsigned) {}
void at_fence() {}
void at_atomic(void*, size_t, const void*) {}
void shared_memory(void*, size_t) {}
void global_memory(void*, size_t, const char*, bool) {}
void forget_global_memory() {}

}  // namespace emulator::race
