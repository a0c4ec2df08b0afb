// The race checker is told of every instrumented access of a kernel.
#pragma once

#include <cstddef>

namespace emulator::race {

// pc: the return address of the instrumented access.
void access(const void* memory, size_t bytes, bool is_write, bool is_atomic, const void* pc);

}  // namespace emulator::race
