// The choice of instruction set, by the processor and by RETINA_OPS_ISA, and the variants of a kernel.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <stdexcept>
#include <vector>

#include "check.h"
#include "common/isa.h"

using namespace retina_ops;

namespace {

// x * x + addend for each of the values, which is exact only if the multiply-add is fused.
template <class Math>
RETINA_OPS_HOST_DEVICE int square_and_add(const std::vector<float>& values, float addend, std::vector<float>& out) {
  for (size_t i = 0; i < values.size(); ++i) out[i] = Math::madd(values[i], values[i], addend);
  return static_cast<int>(values.size());
}

RETINA_OPS_HOST_DEVICE double add(double a, double b) { return a + b; }

bool is_supported(Isa isa) {
#if RETINA_OPS_HAS_X86_TARGETS
  if (isa == Isa::kAvx512) return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  if (isa == Isa::kAvx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return isa == Isa::kBaseline;
}

#ifdef RETINA_OPS_ONE_VARIANT
constexpr bool kBaselineIsFused = true;
#else
constexpr bool kBaselineIsFused = false;
#endif

// The variant for cpu_isa() has the rounding of that instruction set.
void test_variant() {
  const float x = 1.0f + 0x1p-12f;
  const std::vector<float> values(37, x);
  std::vector<float> out(values.size());
  const int count = isa_variant<square_and_add<PlainMath>, square_and_add<FusedMath>>()(values, -1.0f - 0x1p-11f, out);
  EXPECT(count == 37);
  const float expected = cpu_isa() == Isa::kBaseline && !kBaselineIsFused ? 0.0f : 0x1p-24f;
  for (const float value : out) EXPECT(value == expected);
  EXPECT(isa_variant<add>()(1.0, 2.0) == 3.0);
}

// Runs `check` in a process of its own, because cpu_isa() reads RETINA_OPS_ISA once. True if `check` returns true.
bool with_isa(const char* name, bool (*check)()) {
  const pid_t child = fork();
  if (child == 0) {
    setenv("RETINA_OPS_ISA", name, 1);
    _exit(check() && retina_ops_test::failures == 0 ? 0 : 1);
  }
  int status = 1;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

template <Isa isa>
bool uses() {
  test_variant();
  return cpu_isa() == isa;
}

bool is_refused() {
  try {
    cpu_isa();
  } catch (const std::runtime_error&) {
    return true;
  }
  return false;
}

}  // namespace

int main() {
  EXPECT(with_isa("baseline", uses<Isa::kBaseline>));
  EXPECT(with_isa("avx2", is_supported(Isa::kAvx2) ? uses<Isa::kAvx2> : is_refused));
  EXPECT(with_isa("avx512", is_supported(Isa::kAvx512) ? uses<Isa::kAvx512> : is_refused));
  EXPECT(with_isa("sse9", is_refused));
  unsetenv("RETINA_OPS_ISA");
  test_variant();
  for (const Isa isa : {Isa::kAvx2, Isa::kAvx512}) EXPECT(is_supported(isa) == (isa <= cpu_isa()));
  return retina_ops_test::failures;
}
