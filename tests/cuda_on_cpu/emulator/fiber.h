// A stack and a place on it: what the scheduler switches between.
#pragma once

#include <cstddef>

#include "emulator/context.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulator {

class Fiber {
 public:
  using Entry = void (*)();

  Fiber() = default;
  Fiber(const Fiber&) = delete;
  ~Fiber();

  // Will run `entry` from its start when it is next resumed.
  void prepare(Entry entry);
  // Runs until the fiber calls suspend. The host calls this.
  void resume();
  // Back to the host. The running fiber calls this.
  static void suspend();

  const void* stack() const { return stack_; }
  static size_t stack_bytes();

 private:
  char* stack_ = nullptr;  // above a page that nothing may touch
  Context context_{};
  static void start();
};

}  // namespace emulator
