// A place in the program that can be left and taken up again: on x86-64 by hand, since swapcontext makes a system call
// each time; by ucontext elsewhere.
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

// Pushes the registers that a callee must keep, leaves the stack in *from, and takes up `to` in the same way.
extern "C" void emulator_switch_stack(void** from, void* to);

inline void switch_context(Context& from, const Context& to) {
  emulator_switch_stack(&from.stack_pointer, to.stack_pointer);
}

// entry runs on the stack when the context is first taken up; it must not return.
inline void make_context(Context& context, char* stack, size_t bytes, void (*entry)()) {
  constexpr int kSaved = 6;
  auto* top = reinterpret_cast<uintptr_t*>((reinterpret_cast<uintptr_t>(stack) + bytes) & ~uintptr_t(15));
  *--top = 0;  // where entry would return to; also aligns the stack as a call does
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
