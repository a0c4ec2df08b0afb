"""The commands of `retina-ops`: one module per command, with ``run(arguments)``, imported when the command is run."""
