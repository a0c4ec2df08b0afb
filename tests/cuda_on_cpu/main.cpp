// Runs cases: main ORDER SEED FOLDER...; a case that breaks a rule ends the program with its report and status 3.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include "case.h"
#include "emulator/emulator.h"
#include "emulator/launches.h"

namespace {

void run_case(const std::string& folder) {
  const Case given(folder);
  run_launch(given);
  given.save();
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 3) return 2;
  const std::string order = arguments[1];
  emulator::config.order = order == "reverse"  ? emulator::Order::kReverse
                           : order == "random" ? emulator::Order::kRandom
                                               : emulator::Order::kForward;
  emulator::config.seed = std::strtoull(arguments[2], nullptr, 10);
  for (int i = 3; i < count; ++i) {
    try {
      run_case(arguments[i]);
    } catch (const emulator::Violation& violation) {
      std::fprintf(stderr, "%s: %s\n", arguments[i], violation.what());
      return 3;
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s: %s\n", arguments[i], error.what());
      return 2;
    }
  }
  return 0;
}
