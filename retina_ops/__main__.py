"""`python -m retina_ops`, and `torchrun ... -m retina_ops`: the command line."""

from retina_ops.cli import main

if __name__ == "__main__":  # a worker process that is spawned imports this module as well
    raise SystemExit(main())
