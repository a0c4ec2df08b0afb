// The functions that -fsanitize=thread calls, instead of those of ThreadSanitizer's library.
#include <cstddef>
#include <cstring>

#include "emulator/race_checker.h"

using emulator::race::access;

#define ENTRY(NAME, BYTES, IS_WRITE) \
  void NAME(void* memory) { access(memory, BYTES, IS_WRITE, false, __builtin_return_address(0)); }
#define ENTRIES(BYTES)                              \
  ENTRY(__tsan_read##BYTES, BYTES, false)           \
  ENTRY(__tsan_write##BYTES, BYTES, true)           \
  ENTRY(__tsan_unaligned_read##BYTES, BYTES, false) \
  ENTRY(__tsan_unaligned_write##BYTES, BYTES, true) \
  ENTRY(__tsan_volatile_read##BYTES, BYTES, false)  \
  ENTRY(__tsan_volatile_write##BYTES, BYTES, true)

extern "C" {

ENTRIES(1)
ENTRIES(2)
ENTRIES(4)
ENTRIES(8)
ENTRIES(16)

void __tsan_read_range(void* memory, size_t bytes) { access(memory, bytes, false, false, __builtin_return_address(0)); }
void __tsan_write_range(void* memory, size_t bytes) { access(memory, bytes, true, false, __builtin_return_address(0)); }
void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
  access(from, bytes, false, false, __builtin_return_address(0));
  access(to, bytes, true, false, __builtin_return_address(0));
  return std::memcpy(to, from, bytes);
}
void* __tsan_memset(void* to, int value, size_t bytes) {
  access(to, bytes, true, false, __builtin_return_address(0));
  return std::memset(to, value, bytes);
}
void* __tsan_memmove(void* to, const void* from, size_t bytes) {
  access(from, bytes, false, false, __builtin_return_address(0));
  access(to, bytes, true, false, __builtin_return_address(0));
  return std::memmove(to, from, bytes);
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
