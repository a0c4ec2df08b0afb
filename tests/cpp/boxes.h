// Random boxes as plain arrays.
#pragma once

#include <random>
#include <vector>

namespace retina_ops_test {

// [count, 4] boxes inside a field of `side` x `side` pixels, sides between 4 and 60 pixels, on whole pixels.
template <class T>
std::vector<T> random_boxes(int count, double side, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> size(4, 60);
  std::vector<T> boxes;
  for (int i = 0; i < count; ++i) {
    const int width = size(random);
    const int height = size(random);
    const int x = std::uniform_int_distribution<int>(0, static_cast<int>(side) - width)(random);
    const int y = std::uniform_int_distribution<int>(0, static_cast<int>(side) - height)(random);
    for (const int value : {x, y, x + width, y + height}) boxes.push_back(static_cast<T>(value));
  }
  return boxes;
}

}  // namespace retina_ops_test
