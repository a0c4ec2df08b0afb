// A test is a program that returns how many checks failed.
#pragma once

#include <cstdio>

namespace retina_ops_test {

inline int failures = 0;

inline void expect(bool condition, const char* what, const char* file, int line) {
  if (!condition) {
    std::printf("%s:%d: failed: %s\n", file, line, what);
    ++failures;
  }
}

}  // namespace retina_ops_test

#define EXPECT(CONDITION) ::retina_ops_test::expect(CONDITION, #CONDITION, __FILE__, __LINE__)
