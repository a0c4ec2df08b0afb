#include "emulator/fiber.h"

#include <sys/mman.h>

#include <new>

namespace emulator {
namespace {

constexpr size_t kGuard = 4096;
constexpr size_t kStack = 256 << 10;  // sanitizers make frames large

ucontext_t host_context;
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
    mprotect(memory, kGuard, PROT_NONE);  // an overflow of the stack faults
    stack_ = static_cast<char*>(memory) + kGuard;
  }
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(stack_, kStack);
#endif
  current_entry = entry;
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_;
  context_.uc_stack.ss_size = kStack;
  context_.uc_link = nullptr;
  makecontext(&context_, &Fiber::start, 0);
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
  swapcontext(&host_context, &context_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void Fiber::suspend() {
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, host_stack, host_stack_bytes);
#endif
  swapcontext(&running->context_, &host_context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, &host_stack, &host_stack_bytes);
#endif
}

}  // namespace emulator
