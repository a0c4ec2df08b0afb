// The kernels of box_coding/, launched as by their operator.
#include "box_coding/box_coding_launch.cuh"

#include "case.h"

using namespace retina_ops;

// The first box is box `first`: the arrays' pointers are moved back by as much.
void run_box_coding(const Case& c) {
  const int64_t first = c.integer("first");
  const Dtype code_dtype = c.dtype("code_dtype"), proposal_dtype = c.dtype("proposal_dtype");
  const int64_t of_codes = first * bytes_of_box(code_dtype), of_others = first * bytes_of_box(proposal_dtype);
  const bool is_one_to_one = c.integer("period") == c.integer("n");
  BoxCodingProblem problem{};
  problem.op = static_cast<BoxCodingOp>(c.integer("op"));
  problem.codes = c.array("codes", of_codes);
  problem.code_dtype = code_dtype;
  problem.proposals = c.array("proposals", is_one_to_one ? of_others : 0);
  problem.proposal_dtype = proposal_dtype;
  problem.period = is_one_to_one ? first + c.integer("n") : c.integer("period");
  problem.grad = c.array("grad", of_others);
  problem.out = c.array("out", of_others);
  problem.out2 = c.array("out2", of_others);
  problem.out_dtype = proposal_dtype;
  for (int i = 0; i < 4; ++i) problem.weights[i] = c.number("w" + std::to_string(i));
  problem.image_height = c.number("image_height");
  problem.image_width = c.number("image_width");
  launch_box_coding(problem, first, first + c.integer("n"), nullptr);
}
