// exp, log1p, log and atan as polynomials: within the error that their header states, and right where they are not
// numbers.
#include <cmath>
#include <initializer_list>

#include "check.h"
#include "common/elementary.h"

using namespace retina_ops;

namespace {

double relative_error(float got, double expected) {
  return std::abs(static_cast<double>(got) - expected) / std::abs(expected);
}

template <class Math>
void test_exp() {
  double worst = 0.0;
  for (float y = -87.0f; y <= 88.0f; y += 0.00037f) {
    worst = std::fmax(worst, relative_error(exp_bounded<Math>(y), std::exp(static_cast<double>(y))));
  }
  EXPECT(worst <= 2e-7);
  EXPECT(exp_bounded<Math>(0.0f) == 1.0f);
  EXPECT(exp_bounded<Math>(-INFINITY) == 0.0f);
  EXPECT(std::isnan(exp_bounded<Math>(std::nanf("77"))));
}

// exp(-|x|): the whole range, and down to what matters beside 1.
template <class Math>
void test_exp_of_minus_magnitude(double bound, double bound_until_20) {
  double worst = 0.0, worst_until_20 = 0.0;
  for (float x = 0.0f; x <= 87.0f; x += 0.00037f) {
    const double error = relative_error(exp_of_minus_magnitude<Math>(x), std::exp(-static_cast<double>(x)));
    worst = std::fmax(worst, error);
    if (x < 20.0f) worst_until_20 = std::fmax(worst_until_20, error);
    EXPECT(exp_of_minus_magnitude<Math>(-x) == exp_of_minus_magnitude<Math>(x));
  }
  EXPECT(worst <= bound);
  EXPECT(worst_until_20 <= bound_until_20);
  for (const float x : {INFINITY, 88.0f, 3e38f, std::nanf(""), -std::nanf("77")}) {
    EXPECT(exp_of_minus_magnitude<Math>(x) == 0.0f && exp_of_minus_magnitude<Math>(-x) == 0.0f);
  }
}

template <class Math>
void test_log1p(double bound) {
  double worst = 0.0;
  for (float e = 1e-6f; e <= 1.0f; e += 3.1e-6f) {
    worst = std::fmax(worst, relative_error(log1p_ratio<Math>(e) * e, std::log1p(static_cast<double>(e))));
  }
  EXPECT(worst <= bound);
}

template <class Math>
void test_log() {
  double worst = 0.0;
  for (float x = 1e-37f; x < 3e38f; x *= 1.00013f) {
    worst = std::fmax(worst, relative_error(natural_log<Math>(x), std::log(static_cast<double>(x))));
  }
  for (float x = 0.5f; x < 2.0f; x += 1.7e-6f) {  // near 1, where the logarithm is small
    if (x != 1.0f) worst = std::fmax(worst, relative_error(natural_log<Math>(x), std::log(static_cast<double>(x))));
  }
  EXPECT(worst <= 3e-7);
  EXPECT(relative_error(natural_log<Math>(1e-42f), std::log(static_cast<double>(1e-42f))) <= 3e-7);
  EXPECT(natural_log<Math>(1.0f) == 0.0f);
  EXPECT(natural_log<Math>(0.0f) == -INFINITY && natural_log<Math>(-0.0f) == -INFINITY);
  EXPECT(natural_log<Math>(INFINITY) == INFINITY);
  EXPECT(std::isnan(natural_log<Math>(-1.0f)) && std::isnan(natural_log<Math>(std::nanf(""))));
}

template <class Math>
void test_arctangent() {
  double worst = 0.0;
  for (float x = 1e-6f; x <= 1.0f; x += 1.3e-6f) {
    worst = std::fmax(worst, relative_error(arctangent_unit<Math>(x), std::atan(static_cast<double>(x))));
  }
  EXPECT(worst <= 3e-7);
  EXPECT(arctangent_unit<Math>(0.0f) == 0.0f);
  EXPECT(arctangent_unit<Math>(-0.75f) == -arctangent_unit<Math>(0.75f));
  EXPECT(std::isnan(arctangent_unit<Math>(std::nanf(""))));
}

}  // namespace

int main() {
  test_exp<PlainMath>();
  test_exp<FusedMath>();
  test_exp_of_minus_magnitude<PlainMath>(2e-7, 2e-7);
  test_exp_of_minus_magnitude<FusedMath>(5e-7, 2.5e-7);
  test_exp_of_minus_magnitude<CoarseMath>(4e-6, 4e-6);
  test_log1p<PlainMath>(3e-7);
  test_log1p<FusedMath>(3e-7);
  test_log1p<CoarseMath>(1e-5);
  test_log<PlainMath>();
  test_log<FusedMath>();
  test_arctangent<PlainMath>();
  test_arctangent<FusedMath>();
  return retina_ops_test::failures;
}
