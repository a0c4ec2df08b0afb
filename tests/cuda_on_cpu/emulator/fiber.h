// A fiber: a stack and an execution context. The scheduler switches between fibers.
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

  // The next resume calls `entry`.
  void prepare(Entry entry);
  // Runs the fiber until it calls suspend. Called by the host.
  void resume();
  // Returns to the host. Called by the running fiber.
  static void suspend();

  const void* stack() const { return stack_; }
  static size_t stack_bytes();

 private:
  char* stack_ = nullptr;  // above a guard page
  Context context_{};
  static void start();
};

}  // namespace emulator
