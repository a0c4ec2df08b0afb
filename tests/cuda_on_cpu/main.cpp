// Runs cases: main ORDER SEED FOLDER...; a case that breaks a rule ends the program with its report and status 3.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>

#include "case.h"
#include "emulator/emulator.h"

namespace {

struct Runner {
  const char* name;
  void (*run)(const Case&);  // null: left out of this program
};

// clang-format off
const Runner kRunners[] = {
    {"focal_loss", run_focal_loss},
    {"focal_loss_count", run_focal_loss_count},
    {"scale_gradient", run_scale_gradient},
    {"box_iou", run_box_iou},
    {"box_iou_grad", run_box_iou_grad},
    {"box_coding", run_box_coding},
    {"iou_loss", run_iou_loss},
    {"match_anchors", run_match_anchors},
    {"nms", run_nms},
    {"retinanet_loss", run_retinanet_loss},
    {"soft_nms", run_soft_nms},
    {"postprocess", run_postprocess},
};
// clang-format on

// A folder's name is KERNEL or KERNEL-anything.
void run_case(const std::string& folder) {
  const std::string name = folder.substr(folder.find_last_of('/') + 1);
  const std::string kernel = name.substr(0, name.find('-'));
  for (const Runner& runner : kRunners) {
    if (kernel != runner.name) continue;
    if (runner.run == nullptr) throw std::runtime_error("this program was built without " + kernel);
    const Case c(folder);
    runner.run(c);
    c.save();
    return;
  }
  throw std::runtime_error("no such kernel: " + kernel);
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
