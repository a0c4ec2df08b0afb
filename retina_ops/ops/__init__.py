"""One module per operator: the public function, its fake (shape) implementation and its autograd."""
