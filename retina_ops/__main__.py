"""`python -m retina_ops`, and `torchrun ... -m retina_ops`: the command line."""

from retina_ops.cli import main

raise SystemExit(main())
