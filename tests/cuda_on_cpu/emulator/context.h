// An execution context: the registers and the stack of a fiber that does not run. Switched by hand on x86-64, since
// swapcontext makes a system call each time; by ucontext elsewhere.
#pragma once

#include <cstddef>
#include <cstdint>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emulator {

#if defined(__x86_64__)

struct Context {
  void* stack_pointer = nullptr;
};

// Pushes the callee-saved registers, stores the stack pointer in *from, loads it from `to`, and pops the registers.
extern "C" void emulator_switch_stack(void** from, void* to);

inline void switch_context(Context& from, const Context& to) {
  emulator_switch_stack(&from.stack_pointer, to.stack_pointer);
}

// The first switch to the context calls entry, which must not return.
inline void make_context(Context& context, char* stack, size_t bytes, void (*entry)()) {
  constexpr int kSaved = 6;
  auto* top = reinterpret_cast<uintptr_t*>((reinterpret_cast<uintptr_t>(stack) + bytes) & ~uintptr_t(15));
  *--top = 0;  // the return address of entry, which also aligns the stack as a call does
  *--top = reinterpret_cast<uintptr_t>(entry);
  for (int i = 0; i < kSaved; ++i) *--top = 0;
  context.stack_pointer = top;
}

#else

using Context = ucontext_t;

inline void switch_context(Context& from, const Context& to) { swapcontext(&from, &to); }

inline void make_context(Context& context, char* stack, size_t bytes, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = bytes;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}

#endif

}  // namespace emulator
