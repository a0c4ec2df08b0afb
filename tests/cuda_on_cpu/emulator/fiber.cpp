#include "emulator/fiber.h"

#include <sys/mman.h>

#include <new>

#if defined(__x86_64__)
__asm__(R"(
.text
.globl emulator_switch_stack
.type emulator_switch_stack, @function
emulator_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulator_switch_stack, .-emulator_switch_stack
)");
#endif

namespace emulator {
namespace {

constexpr size_t kGuard = 4096;
constexpr size_t kStack = 256 << 10;  // sanitizers make frames large
constexpr size_t kStartFrame = 4096;

Context host_context;
Fiber::Entry current_entry;
#if defined(__SANITIZE_ADDRESS__)
const void* host_stack;
size_t host_stack_bytes;
#endif

}  // namespace

size_t Fiber::stack_bytes() { return kStack; }

Fiber::~Fiber() {
  if (stack_ != nullptr) munmap(stack_ - kGuard, kGuard + kStack);
}

void Fiber::prepare(Entry entry) {
  if (stack_ == nullptr) {
    void* memory = mmap(nullptr, kGuard + kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    mprotect(memory, kGuard, PROT_NONE);  // a stack overflow is a fault
    stack_ = static_cast<char*>(memory) + kGuard;
  }
#if defined(__SANITIZE_ADDRESS__)
  // The kernel has returned, so its frames are gone. Only the frame of start, at the top, was never left.
  __asan_unpoison_memory_region(stack_ + kStack - kStartFrame, kStartFrame);
#endif
  current_entry = entry;
  make_context(context_, stack_, kStack, &Fiber::start);
}

void Fiber::start() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &host_stack, &host_stack_bytes);
#endif
  current_entry();
  __builtin_unreachable();  // the entry ends with suspend
}

namespace {
Fiber* running;
}  // namespace

void Fiber::resume() {
  running = this;
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, stack_, kStack);
#endif
  switch_context(host_context, context_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void Fiber::suspend() {
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, host_stack, host_stack_bytes);
#endif
  switch_context(running->context_, host_context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, &host_stack, &host_stack_bytes);
#endif
}

}  // namespace emulator
