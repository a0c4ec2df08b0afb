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

double long_error(double got, long double expected) {
  return static_cast<double>(std::abs((static_cast<long double>(got) - expected) / expected));
}

template <class Math>
void test_doubles() {
  double exponential = 0.0, logarithm = 0.0, ratio = 0.0, arctangent = 0.0;
  for (double y = -708.0; y < 709.0; y += 0.00137) {
    exponential = std::fmax(exponential, long_error(exp_bounded<Math>(y), std::exp(static_cast<long double>(y))));
    EXPECT(y > 0.0 || exp_of_minus_magnitude<Math>(y) == exp_bounded<Math>(y));
  }
  for (double x = 1e-300; x < 1e300; x *= 1.00731) {
    logarithm = std::fmax(logarithm, long_error(natural_log<Math>(x), std::log(static_cast<long double>(x))));
  }
  for (double x = 0.5; x < 2.0; x += 1.0000001e-6) {  // near 1, where the logarithm is small
    if (x != 1.0) {
      logarithm = std::fmax(logarithm, long_error(natural_log<Math>(x), std::log(static_cast<long double>(x))));
    }
  }
  for (double x = 1e-9; x <= 1.0; x += 1.3e-6) {
    const long double exact = x;
    ratio = std::fmax(ratio, long_error(log1p_ratio<Math>(x), std::log1p(exact) / exact));
    arctangent = std::fmax(arctangent, long_error(arctangent_unit<Math>(x), std::atan(exact)));
  }
  EXPECT(exponential <= 4e-16 && logarithm <= 4e-16 && ratio <= 4e-16 && arctangent <= 4e-16);
  const double nan = std::nan("77"), infinity = INFINITY;
  EXPECT(exp_bounded<Math>(0.0) == 1.0 && exp_bounded<Math>(-infinity) == 0.0 && exp_bounded<Math>(-709.5) == 0.0);
  EXPECT(std::isnan(exp_bounded<Math>(nan)));
  for (const double x : {infinity, 709.5, 1e308, nan}) {
    EXPECT(exp_of_minus_magnitude<Math>(x) == 0.0 && exp_of_minus_magnitude<Math>(-x) == 0.0);
  }
  EXPECT(exp_of_minus_magnitude<Math>(-0.0) == 1.0 && log1p_ratio<Math>(0.0) == 1.0);
  EXPECT(natural_log<Math>(1.0) == 0.0 && natural_log<Math>(infinity) == infinity);
  EXPECT(natural_log<Math>(0.0) == -infinity && natural_log<Math>(-0.0) == -infinity);
  EXPECT(long_error(natural_log<Math>(4.9e-324), std::log(static_cast<long double>(4.9e-324))) <=
         4e-16);  // no exponent of its own
  EXPECT(std::isnan(natural_log<Math>(-1.0)) && std::isnan(natural_log<Math>(nan)));
  EXPECT(arctangent_unit<Math>(0.0) == 0.0 && arctangent_unit<Math>(-0.75) == -arctangent_unit<Math>(0.75));
  EXPECT(std::isnan(arctangent_unit<Math>(nan)));
}

}  // namespace

int main() {
  test_doubles<PlainMath>();
  test_doubles<FusedMath>();
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
